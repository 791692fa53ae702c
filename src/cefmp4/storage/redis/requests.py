"""The channel on which commands tell running instances what an operator asked for. A message that
comes while the connection is down is lost: what it is about is in the records."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing

import structlog
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from cefmp4.retry import Backoff
from cefmp4.storage.redis.link import RedisLink

log = structlog.get_logger()

CHANNEL = "cefmp4:requests"
QUIET_S = 10.0  # so long without a message, and we ask whether the server is still there
ANSWER_S = 5.0
PAUSES = Backoff(first_s=0.1, cap_s=5.0)


async def listen(link: RedisLink) -> AsyncGenerator[tuple[str, str], None]:
    failures = 0
    while True:
        subscriber = link.subscriber()
        try:
            async with asyncio.timeout(ANSWER_S):
                await subscriber.subscribe(CHANNEL)  # type: ignore[no-untyped-call,unused-ignore]
            async with aclosing(_messages(subscriber)) as messages:
                async for data in messages:
                    failures = 0
                    request = _parse(data)
                    if request:
                        yield request
        except (RedisError, OSError) as error:
            log.debug("no requests can come", reason=str(await link.translate(error)))
        finally:
            await subscriber.aclose()  # type: ignore[no-untyped-call,unused-ignore]
        failures += 1
        await asyncio.sleep(PAUSES.wait_s(failures))


async def _messages(subscriber: PubSub) -> AsyncGenerator[bytes, None]:
    """Ends with an error where the server does not answer a ping."""
    is_asked = False
    while True:
        message = await subscriber.get_message(timeout=ANSWER_S if is_asked else QUIET_S)
        if message is None and is_asked:
            raise TimeoutError
        is_asked = message is None
        if message is None:
            async with asyncio.timeout(ANSWER_S):
                await subscriber.ping()  # type: ignore[no-untyped-call,unused-ignore]
        elif message["type"] == "message":
            yield message["data"]


def _parse(data: bytes) -> tuple[str, str] | None:
    try:
        action, stream_id = json.loads(data)
    except (ValueError, TypeError):
        log.warning("a request that cannot be read was left out")
        return None
    return str(action), str(stream_id)
