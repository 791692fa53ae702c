"""The one writer of a stream's record: memory first, then Redis, guarded by the lease."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace

import structlog

from cefmp4 import metrics
from cefmp4.errors import LeaseLostError, TransientError
from cefmp4.model.part import Part
from cefmp4.model.stream import FileStamp, Stream, StreamState
from cefmp4.ports.checkpoints import CheckpointStore, Lease
from cefmp4.recording.digests import combine_crcs
from cefmp4.retry import patiently
from cefmp4.tasks import finish

log = structlog.get_logger()

LAST_WRITE_PATIENCE_S = 3.0


class StreamRecord:
    """Waits for a Redis that is away, and writes everything again into one that was emptied.
    Raises LeaseLostError once another instance owns the stream."""

    def __init__(
        self,
        *,
        stream: Stream,
        lease: Lease,
        parts: dict[int, Part],
        checkpoints: CheckpointStore,
        wall_clock: Callable[[], float],
    ) -> None:
        self._stream = stream
        self.lease = lease
        self._parts = parts
        self.written_path = stream.relpath  # what Redis says; the file may have been renamed since
        self.is_released = False
        self._checkpoints = checkpoints
        self._wall_clock = wall_clock
        self.has_grown = False  # while we looked: a recording that goes before the backlog
        self.opening = asyncio.Lock()  # one upload is begun per stream, whoever comes first
        self._lock = asyncio.Lock()
        self._holds_key = True

    def __repr__(self) -> str:
        return f"<StreamRecord {self._stream!r} parts={len(self._parts)} fence={self.lease.fence}>"

    @property
    def stored_bytes(self) -> int:
        return sum(part.size for part in self._parts.values())

    @property
    def stream(self) -> Stream:
        """As it is now; whoever waits for anything asks again."""
        return self._stream

    @property
    def parts(self) -> Mapping[int, Part]:
        return self._parts

    # What happened: memory alone. The next write tells it.

    def seen(self, stamp: FileStamp) -> None:
        """What the disk says now."""
        then = self._stream
        self.has_grown = self.has_grown or (then.stamp is not None and stamp.size > then.size)
        self._stream = replace(then, stamp=stamp, size=stamp.size)

    def closed(self, at: float) -> None:
        self._stream = replace(self._stream, closed_at=at)

    def renamed(self, relpath: str) -> None:
        self._stream = replace(self._stream, relpath=relpath)

    def object_made(self, etag: str) -> None:
        """The object is there, and no upload any more."""
        self._stream = replace(self._stream, etag=etag, upload_id="", is_adopted=False)

    def examined(self, *, sha256: str, playable: bool | None) -> None:
        self._stream = replace(self._stream, sha256=sha256, playable=playable)

    # What happened, and is written down at once.

    async def opened(self, upload_id: str) -> None:
        self._stream = replace(self._stream, upload_id=upload_id)
        if self._stream.state in (StreamState.DISCOVERED, StreamState.STALE):
            self._stream = self._stream.moved_to(StreamState.UPLOADING)
        await self.save()

    async def upload_gone(self, *, sent_high: int = 0) -> None:
        """With its parts: the stream may begin another. What was sent is no loss, unless there is
        a `sent_high` that counts all the same."""
        self._stream = replace(self._stream, upload_id="", is_adopted=False, sent_high=sent_high)
        await self._write_without(list(self._parts))

    async def moved_to_key(self, key: str) -> bool:
        """False: another stream holds that one, too."""
        self._stream = replace(self._stream, key=key)
        return await self.save()

    async def failed(self, reason: str, *, counted_as: str = "failed") -> None:
        await self.move_to(StreamState.FAILED, reason)
        log.error("stream failed", reason=reason, file_path=self._stream.relpath)
        metrics.streams_failed.inc()
        metrics.count_failure(counted_as, self._stream.id)

    async def proven(self, *, stamp: FileStamp, crc64: int, sha256: str) -> None:
        """The object holds all bytes of the file, which was like `stamp` then."""
        self._stream = replace(
            self._stream,
            stamp=stamp,
            size=stamp.size,
            crc64=crc64,
            sha256=sha256,
            completed_at=self._wall_clock(),
            closed_at=self._stream.closed_at or stamp.ctime_ns / 1e9,
        )
        await self.move_to(StreamState.STORED)

    async def described(self, *, owes_jobs: bool) -> None:
        self._stream = replace(self._stream, owes_jobs=owes_jobs)
        if self._stream.state is StreamState.DESCRIBED:
            await self.save()
        else:
            await self.move_to(StreamState.DESCRIBED)

    async def handed_over(self) -> None:
        self._stream = replace(self._stream, owes_jobs=False)
        await self.move_to(StreamState.HANDED_OVER)

    async def was_made(self, etag: str, stamp: FileStamp) -> None:
        """Of the parts, before a crash. `stamp`: of the file when it was seen last; where it has
        another size by now, it is not the one that was proven."""
        parts = [self._parts[number] for number in sorted(self._parts)]
        crc64 = combine_crcs((part.crc64, part.size) for part in parts)
        await self.move_to(StreamState.FINALIZING)
        self.object_made(etag)
        await self.proven(stamp=replace(stamp, size=self.stored_bytes), crc64=crc64, sha256="")

    async def move_to(self, state: StreamState, reason: str = "") -> None:
        if self._stream.state is state and reason in ("", self._stream.reason):
            return
        self._stream = self._stream.moved_to(state, reason)
        because = {"reason": reason} if reason else {}
        level = logging.WARNING if state is StreamState.FAILED else logging.INFO
        log.log(level, f"stream is {state}", bytes=self._stream.size, **because)
        await self.save()

    async def part_stored(self, part: Part) -> None:
        """The second half of the commit pair: never torn by a cancel."""
        self._parts[part.number] = part
        sent_high = max(self._stream.sent_high, self._end_of(part))
        self._stream = replace(self._stream, sent_high=sent_high)
        await self._write(parts=(part,))

    async def drop_parts(self, numbers: Iterable[int]) -> None:
        if gone := [number for number in numbers if number in self._parts]:
            await self._write_without(gone)

    async def _write_without(self, numbers: list[int]) -> None:
        for number in numbers:
            del self._parts[number]
        await self._write(drop=numbers)

    async def drop_beyond(self, size: int) -> None:
        """For a file that became shorter."""
        await self.drop_parts(
            [number for number, part in self._parts.items() if self._end_of(part) > size]
        )

    async def forget_sent(self) -> None:
        """What was sent beyond the parts that are left is no loss."""
        sent_high = max(map(self._end_of, self._parts.values()), default=0)
        self._stream = replace(self._stream, sent_high=sent_high)
        await self.save()

    def _end_of(self, part: Part) -> int:
        return self._stream.plan.place_of(part).end

    async def save(self) -> bool:
        """False: written, but another stream holds the key."""
        await self._write()
        return self._holds_key

    async def restore(self) -> None:
        """Writes all of it again: for a Redis that has lost its memory."""
        await self._write(parts=tuple(self._parts.values()))

    async def _write(self, *, parts: Iterable[Part] = (), drop: Iterable[int] = ()) -> None:
        """Not torn by a cancel, either. A Redis that is away ends the patience: what it misses is
        found again in S3."""
        await finish(
            self._write_in_turn(parts, drop), name="checkpoint", patience_s=LAST_WRITE_PATIENCE_S
        )

    async def _write_in_turn(self, parts: Iterable[Part], drop: Iterable[int]) -> None:
        async with self._lock:
            self._stream = replace(self._stream, updated_at=self._wall_clock())
            await patiently(lambda: self._save_once(parts, drop), what="checkpoint")

    async def _save_once(self, parts: Iterable[Part], drop: Iterable[int]) -> None:
        path = self._stream.relpath
        try:
            self._holds_key = await self._checkpoints.save(
                self._stream, self.lease, parts=parts, drop=drop
            )
        except LeaseLostError:
            if self.is_released:
                raise  # it may be forgotten by now
            await self._claim_again()
            path, everything = self._stream.relpath, tuple(self._parts.values())
            self._holds_key = await self._checkpoints.save(
                self._stream, self.lease, parts=everything
            )
        self.written_path = path

    async def _claim_again(self) -> None:
        """A lease that merely ran out, or was wiped, is ours again if nobody else took it. The name
        that Redis does not know yet may have been another stream's before: that is taken from it by
        the write that tells of the rename, not by the claim."""
        for path in dict.fromkeys((self._stream.relpath, self.written_path)):
            stream = replace(self._stream, relpath=path)
            if lease := await self._checkpoints.claim(stream, self.lease.owner):
                self.lease = lease
                return
        metrics.leases_lost.inc()
        raise LeaseLostError(f"another instance owns stream {self._stream.id} now")

    async def release(self) -> None:
        self.is_released = True
        with suppress(TransientError, LeaseLostError):  # it runs out by itself
            await self._checkpoints.release(self.lease)
