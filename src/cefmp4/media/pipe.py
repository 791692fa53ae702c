"""The end of a pipe that is read. A stream of asyncio would hold back what came and copy it twice;
this one reads only what is asked for, straight to where it stays, and what nobody asks for stops
who writes."""

import asyncio
import os


class Pipe:
    """Owns its descriptor."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        os.set_blocking(fd, False)

    def __repr__(self) -> str:
        return f"<Pipe {self._fd}>"

    def close(self) -> None:
        os.close(self._fd)

    async def read_into(self, room: memoryview) -> int:
        """How many bytes came, as soon as any are there; 0 at the end."""
        await asyncio.sleep(0)  # one that is always full leaves time for the others
        while True:
            try:
                return os.readv(self._fd, [room])
            except BlockingIOError:
                await self._readable()

    async def read(self, most: int) -> bytes:
        """The same, as bytes of their own."""
        room = bytearray(most)
        count = await self.read_into(memoryview(room))
        return bytes(room[:count])

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        there = asyncio.Event()
        loop.add_reader(self._fd, there.set)
        try:
            await there.wait()
        finally:
            loop.remove_reader(self._fd)
