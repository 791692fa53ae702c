"""Files that claim far more than was ever written to them: one command makes fifteen terabytes of
nothing, which would fill the store. They wait for their data."""

import asyncio
import os

from cefmp4.model.part import GIB, MIB
from cefmp4.model.stream import FileStamp
from cefmp4.recording.file import SourceFile

DEFAULT_LIMIT_BYTES = GIB
MAX_SEEKS = 10_000  # some 10 ms


class Holes:
    """`limit_bytes`: what a file may lack, however little it has."""

    def __init__(self, source: SourceFile, *, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        self._source = source
        self._limit_bytes = limit_bytes
        self._known: tuple[FileStamp | None, str] = (None, "")

    def __repr__(self) -> str:
        return f"<Holes {self._known[1]!r}>"

    async def complaint(self, stamp: FileStamp | None) -> str:
        """Why the file is not to be stored as it is; empty where it may be."""
        if stamp is None or stamp.size <= self._limit_bytes:
            return ""
        if self._known[0] != stamp:
            missing = await asyncio.to_thread(missing_bytes, self._source.fd, stamp.size)
            self._known = (stamp, self._judge(stamp.size, missing))
        return self._known[1]

    def _judge(self, size: int, missing: int) -> str:
        if missing <= self._limit_bytes or 2 * missing <= size:
            return ""
        return (
            f"mostly holes: {missing // MIB} of {size // MIB} MiB were never written; write them, "
            f"or allow it with HOLES_LIMIT_BYTES={missing} and `cefmp4 streams retry`"
        )


def missing_bytes(fd: int, size: int) -> int:
    """The bytes of holes that take no room on the disk either: space that was reserved is meant to
    be used, and compressed data is no hole. 0 where the file system cannot tell. Blocking."""
    without_room = size - os.fstat(fd).st_blocks * 512
    if without_room <= 0:
        return 0
    holes = at = 0
    try:
        for _ in range(MAX_SEEKS):
            hole = min(os.lseek(fd, at, os.SEEK_HOLE), size)  # it may have grown meanwhile
            at = min(_next_data(fd, hole, size), size)
            holes += at - hole
            if at >= size:
                return min(holes, without_room)
    except OSError:  # it shrank meanwhile
        return 0
    return without_room


def _next_data(fd: int, at: int, size: int) -> int:
    try:
        return os.lseek(fd, at, os.SEEK_DATA)
    except OSError:  # there is none
        return size
