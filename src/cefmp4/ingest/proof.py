"""Turns a finished file into a proven object: read it once, send what differs, complete, compare.

The SHA-256 comes from the same reading, except for a file that is sent by it: that one was read for
sending only, so its SHA-256 is left to whoever describes it, when the wire is quiet.

The proof: every byte is read under a write guard that tells of any writer, every part the store
holds was checked by the store against the checksum of those very bytes, and the file has not
changed between the first read and the completion."""

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from time import time

import structlog

from cefmp4 import metrics
from cefmp4.errors import KeyTakenError, ProofFailedError, first_error
from cefmp4.ingest.admitted import Admitted
from cefmp4.ingest.object_keys import make_own
from cefmp4.ingest.uploader import Uploader, object_metadata, together
from cefmp4.model import names
from cefmp4.model.part import MIB, Part, PartRange
from cefmp4.model.stream import Stream
from cefmp4.recording.digests import Digest, ShortFileError, combine_crcs, hash_range, new_sha256
from cefmp4.recording.write_guard import WriteGuard

log = structlog.get_logger()

SHORT = 4 * MIB
LONG = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 8
SENDS_AHEAD = 4  # parts of one stream that are hashed and wait for the wire


class DisturbedError(Exception):
    """The file may have changed meanwhile, or is gone: what was read of it proves nothing."""


class Proof:
    """`read`, then `store`; between them the caller waits for the rest of the settle time. From its
    beginning to its end it notices when the file may have changed: the guard knows from the kernel
    where that can tell; the stamp is compared in any case."""

    def __init__(self, uploader: Uploader, admitted: Admitted, guard: WriteGuard) -> None:
        self._uploader = uploader
        self._store = uploader.store
        self._admitted = admitted
        self._record = admitted.record
        self._source = admitted.source
        self._guard = guard
        self.stamp = admitted.source.stamp()
        self.crcs: list[tuple[int, int]] = []  # (crc, size) in order
        self.sha256 = ""
        self.changed: list[int] = []  # parts that had been sent with other bytes
        self.sent_early = 0
        self.copies: list[tuple[PartRange, int]] = []
        plan, upload_id = self._record.stream.plan, self._record.stream.upload_id
        # It goes as one object, at the end.
        self._in_one_piece = self.stamp.size <= plan.range_of(1).end and not upload_id

    def __repr__(self) -> str:
        return f"<Proof {self.stamp} parts={len(self.crcs)} changed={self.changed}>"

    @property
    def crc64(self) -> int:
        return combine_crcs(self.crcs)

    def is_of_bytes_of(self, stored: Stream) -> bool:
        same = (stored.size, stored.crc64) == (self.stamp.size, self.crc64)
        return same and stored.sha256 in ("", self.sha256)

    def is_disturbed(self) -> bool:
        return self._guard.is_broken or self._source.stamp() != self.stamp

    def check(self) -> None:
        if self.is_disturbed():
            raise DisturbedError

    async def read(self) -> None:
        """Reads the file once from end to end, for CRC and SHA-256, and sends what the store does
        not hold yet or holds with other bytes, unless all of it goes in one piece."""
        digest = new_sha256()
        digests = (digest,) if self._is_reading_again() else ()
        in_line = asyncio.Semaphore(SENDS_AHEAD)

        async def send_in_line(part: PartRange, crc64: int) -> None:
            try:
                await self._uploader.send_part(self._admitted, part, crc64)
            finally:
                in_line.release()

        try:
            with first_error():
                async with asyncio.TaskGroup() as group:
                    for part in self._record.stream.plan.ranges_for(self.stamp.size):
                        crc64 = await self._hash(part, digests)
                        self.crcs.append((crc64, part.size))
                        if self._is_held(part, crc64) or self._in_one_piece:
                            continue
                        if self._admitted.object_with(part, crc64) is not None:
                            self.copies.append((part, crc64))
                        else:
                            await self._uploader.begin(self._record)
                            await in_line.acquire()
                            group.create_task(send_in_line(part, crc64), name=f"part {part.number}")
        except (ShortFileError, ProofFailedError):
            raise DisturbedError from None
        self.sha256 = digest.hexdigest() if digests else ""

    def _is_held(self, part: PartRange, crc64: int) -> bool:
        """Whether the store has these bytes already; counts what had to be sent in vain."""
        held = self._record.parts.get(part.number)
        if held is None:
            return False
        if held.size == part.size:  # a shorter one was the end of the file once, and no rewrite
            self.sent_early += 1
            if held.crc64 == crc64:
                return True
            self.changed.append(part.number)
        return False

    def _is_reading_again(self) -> bool:
        """Whether this is the second reading of most of the file, or must tell it from another, or
        is too short, or too long to stay in the page cache, to be worth another one."""
        size = self.stamp.size
        if self._admitted.former is not None or not SHORT <= size <= LONG:
            return True
        return 2 * self._record.stored_bytes >= size

    async def _hash(self, part: PartRange, digests: tuple[Digest, ...]) -> int:
        def read() -> int:
            is_stopped, fd = self.is_disturbed, self._source.fd
            return hash_range(fd, part.start, part.end, also=digests, is_stopped=is_stopped)

        return await asyncio.get_running_loop().run_in_executor(self._uploader.hashing, read)

    async def copy(self) -> int:
        """What the former generation has of it, inside the store; returns how many parts."""
        with self._noticing():
            await self._uploader.begin(self._record)
            copying = [
                self._uploader.send_part(self._admitted, part, crc64) for part, crc64 in self.copies
            ]
            return len(await together(copying))

    async def store(self) -> None:
        with self._noticing():
            await (self._store_whole() if self._in_one_piece else self._complete())

    async def _store_whole(self) -> None:
        stream, size = self._record.stream, self.stamp.size

        async def put(if_absent: bool) -> str:
            async with self._uploader.sending_whole.enter(stream.relpath):
                self.check()
                return await self._store.put_object(
                    stream.key,
                    self._source.range(0, size),
                    content_type=names.content_type_of(stream.relpath),
                    metadata=object_metadata(stream),
                    crc64=self.crc64,
                    if_absent=if_absent,
                )

        etag = await self._make_object(put, what="object upload")
        if size:
            await self._record.part_stored(
                Part(number=1, size=size, crc64=self.crc64, etag=etag, uploaded_at=time())
            )
            metrics.count_part(stream.id, size, is_copy=False)

    async def _complete(self) -> None:
        record, count = self._record, len(self.crcs)
        await record.drop_parts([number for number in record.parts if number > count])
        parts = [record.parts[number] for number in range(1, count + 1)]
        stream = record.stream
        await self._make_object(
            lambda if_absent: self._store.complete_upload(
                stream.key,
                stream.upload_id,
                parts,
                crc64=self.crc64,
                owner="" if stream.is_adopted else stream.id,
                if_absent=if_absent,
            ),
            what="completion",
        )

    async def _make_object(
        self, make: Callable[[bool], Coroutine[None, None, str]], *, what: str
    ) -> str:
        """Never over another recording: the last word on who owns the stream and its key is asked
        for just before it counts."""
        stream = self._record.stream

        async def make_rightly(if_absent: bool) -> str:
            if not await self._record.save():
                raise KeyTakenError(f"{self._record.stream.key}: another stream holds the key")
            self.check()
            return await make(if_absent)

        etag = await make_own(self._store, stream.key, stream.id, make_rightly, what=what)
        self._record.object_made(etag)
        return etag

    @contextmanager
    def _noticing(self) -> Iterator[None]:
        """A store that has got other bytes than those that were read may be right, or wrong: it
        depends on the file."""
        try:
            yield
        except ShortFileError:
            raise DisturbedError from None
        except ProofFailedError:
            self.check()
            raise
