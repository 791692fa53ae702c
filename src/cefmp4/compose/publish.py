"""The profile `publish` of docker-compose.yml: hands ports on to the servers, unless their keys are
weak. python -m cefmp4.compose.publish PORT=HOST:PORT..."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack

from cefmp4.compose import WEAK

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
_BYTES_AT_ONCE = 256 * 1024


async def publish(ways: Sequence[str]) -> None:
    async with AsyncExitStack() as servers:
        for way in ways:
            port, _, target = way.partition("=")
            host, _, to = target.rpartition(":")
            server = await asyncio.start_server(_to(host, int(to)), port=int(port))
            await servers.enter_async_context(server)
        await asyncio.Event().wait()


def _to(host: str, port: int) -> Handler:
    async def hand_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            from_server, to_server = await asyncio.open_connection(host, port)
            try:
                async with asyncio.TaskGroup() as both:
                    both.create_task(_copy(reader, to_server), name="to the server")
                    both.create_task(_copy(from_server, writer), name="from the server")
            finally:
                to_server.close()
        except* OSError:
            pass  # one of the two ends is gone: so is the other
        finally:
            writer.close()

    return hand_on


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_BYTES_AT_ONCE):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


def main() -> int:
    weak = WEAK.read_text().splitlines()
    for reason in weak:
        print(f"not published: {reason}", file=sys.stderr)
    if weak:
        return 2
    asyncio.run(publish(sys.argv[1:]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
