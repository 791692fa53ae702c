"""Whether an open file is the one that a stream was made of. The file system proves it by device,
inode and birth; where it cannot, only the bytes do. Nothing else counts: inode numbers are used
again at once, and copies keep their dates."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from functools import partial

from cefmp4.errors import SourceError
from cefmp4.model.part import Part, PartPlan
from cefmp4.model.stream import FileStamp, Stream
from cefmp4.recording.digests import Digest, ShortFileError, hash_range, holds_crc, new_sha256
from cefmp4.recording.file import SourceFile


class Identity:
    def __init__(self, *, hashing: Executor) -> None:
        self._hashing = hashing

    async def is_file_of(
        self,
        source: SourceFile,
        stamp: FileStamp,
        stream: Stream,
        load_parts: Callable[[], Awaitable[dict[int, Part]]],
    ) -> bool:
        """Whatever its name is now. The file of a stream that is not proven yet may have changed in
        any way: there, what was sent of it tells the file. All of it is compared before the stream
        is stored."""
        if stream.stamp is None:
            return False
        if stream.is_proven and not stamp.has_size_and_date_of(stream.stamp):
            return False
        is_same = stamp.is_same_file(stream.stamp)
        if is_same is not None:
            return is_same
        if stream.is_proven:
            return await self.holds(source, stream)
        parts = await load_parts()
        return await self._in_thread(partial(_holds_some, source, stream.plan, parts))

    async def holds(
        self, source: SourceFile, stream: Stream, *, also: tuple[Digest, ...] = ()
    ) -> bool:
        """Whether the file has the proven bytes, whatever its dates say."""
        return await self._in_thread(partial(holds, source, stream, also=also))

    async def _in_thread(self, read: Callable[[], bool]) -> bool:
        return await asyncio.get_running_loop().run_in_executor(self._hashing, read)


def sample(numbers: list[int]) -> list[int]:
    """The first, the middle and the last of them, each once."""
    if not numbers:
        return []
    return list(dict.fromkeys((numbers[0], numbers[len(numbers) // 2], numbers[-1])))


def take_up(source: SourceFile, relpath: str, plan: PartPlan, parts: Mapping[int, Part]) -> bool:
    """Goes on with the file that has this name now, if the descriptor of `source` is lost (as below
    a FUSE mount, or on a file server, where our kernel sees no renames) and that file has what was
    sent. Nothing hangs on it but what is sent again: all of the file is compared before it counts
    as stored. Blocking."""
    if not source.is_lost:
        return False
    try:
        with SourceFile.open(source.root, relpath) as there:
            is_it = _holds_some(there, plan, parts) if parts else there.is_same_inode(source)
            return is_it and source.take_over(there)
    except (FileNotFoundError, SourceError, OSError):
        return False


def _holds_some(source: SourceFile, plan: PartPlan, parts: Mapping[int, Part]) -> bool:
    """A writer patches one part or another; that one of them is the same tells the file."""
    sent = dict(parts)  # more may be sent meanwhile
    return any(
        holds_crc(source.fd, plan.range_of(number).start, sent[number].size, sent[number].crc64)
        for number in sample(sorted(sent))
    )


def holds(
    source: SourceFile,
    stream: Stream,
    *,
    also: tuple[Digest, ...] = (),
    is_stopped: Callable[[], bool] = lambda: False,
) -> bool:
    """Whether the file has all the bytes of a proven stream, and no others. Blocking."""
    if source.stamp().size != stream.size:
        return False  # without reading it
    whole = new_sha256()
    digests = (*also, whole) if stream.sha256 else also
    try:
        crc64 = hash_range(source.fd, 0, stream.size, also=digests, is_stopped=is_stopped)
    except ShortFileError:
        return False
    is_whole = source.stamp().size == stream.size
    return is_whole and crc64 == stream.crc64 and stream.sha256 in ("", whole.hexdigest())
