"""The pipes between ffmpeg and us: one per output, the writing ends inherited, the reading ends
asyncio streams that stop reading when nobody takes their bytes."""

import asyncio
import fcntl
import os
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from functools import partial

_PIPE_BYTES = 1024 * 1024  # the kernel's limit for everybody; fewer wake-ups than with 64 KiB
_BUFFER_BYTES = 1024 * 1024


@asynccontextmanager
async def open_pipes(count: int) -> AsyncIterator[tuple[list[asyncio.StreamReader], list[int]]]:
    """Reading and writing ends. Close the writing ones when the child has them, or the end of an
    output would never be seen."""
    readers: list[asyncio.StreamReader] = []
    writing: list[int] = []
    with ExitStack() as stack:
        stack.callback(close_all, writing)
        for _ in range(count):
            read_fd, write_fd = os.pipe()
            writing.append(write_fd)
            _enlarge(write_fd)
            readers.append(asyncio.StreamReader(limit=_BUFFER_BYTES))
            transport, _ = await asyncio.get_running_loop().connect_read_pipe(
                partial(asyncio.StreamReaderProtocol, readers[-1]),
                os.fdopen(read_fd, "rb", buffering=0),
            )
            stack.callback(transport.close)
        yield readers, writing


def close_all(fds: list[int]) -> None:
    while fds:
        os.close(fds.pop())


def _enlarge(fd: int) -> None:
    if sys.platform == "linux":
        try:
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        except OSError:
            return  # the user's share of pipe memory is used up: it works, with more wake-ups
