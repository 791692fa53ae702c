"""The pipes between ffmpeg and us: one per output, the writing ends inherited, the reading ends
asyncio streams that stop reading when nobody takes their bytes."""

import asyncio
import fcntl
import os
import sys
from types import TracebackType

_PIPE_BYTES = 1024 * 1024  # the kernel's limit for everybody; fewer wake-ups than with 64 KiB
_BUFFER_BYTES = 1024 * 1024


class Pipes:
    """Opened for `count` outputs. Pass `write_fds` to the child, then `close_writers`, or the end
    of an output would never be seen."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._read_fds: list[int] = []
        self.write_fds: list[int] = []
        self._transports: list[asyncio.BaseTransport] = []

    def __enter__(self) -> "Pipes":
        for _ in range(self._count):
            reading, writing = os.pipe()
            self._read_fds.append(reading)
            self.write_fds.append(writing)
            _enlarge(writing)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for transport in self._transports:
            transport.close()
        self.close_writers()
        for fd in self._read_fds:
            os.close(fd)
        self._read_fds = []

    def close_writers(self) -> None:
        for fd in self.write_fds:
            os.close(fd)
        self.write_fds = []

    async def reader(self, position: int) -> asyncio.StreamReader:
        """Of one output. The stream owns its end from then on."""
        reader = asyncio.StreamReader(limit=_BUFFER_BYTES)
        fd = os.dup(self._read_fds[position])
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(fd, "rb", buffering=0)
        )
        self._transports.append(transport)
        return reader


def _enlarge(fd: int) -> None:
    if sys.platform == "linux":
        try:
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        except OSError:
            return  # the user's share of pipe memory is used up: it works, with more wake-ups
