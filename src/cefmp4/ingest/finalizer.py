"""Turns a finished file into a proven object: read it once, send what differs, complete, compare.

The SHA-256 comes from the same reading, except for a file that is sent by it: that one was read for
sending only, so its SHA-256 is left to whoever describes it, when the wire is quiet.

The proof: every byte is read under a write guard that tells of any writer, every part the store
holds was checked by the store against the checksum of those very bytes, and the file has not
changed between the first read and the completion."""

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import time

import structlog

from cefmp4 import metrics
from cefmp4.errors import KeyTakenError, ProofFailedError, first_error
from cefmp4.ingest.fairness import FairGate
from cefmp4.ingest.object_keys import make_own
from cefmp4.ingest.record import StreamRecord
from cefmp4.ingest.uploader import FormerGeneration, Uploader, object_metadata, together
from cefmp4.model import names
from cefmp4.model.part import MIB, Part, PartRange
from cefmp4.model.stream import FileStamp, Stream
from cefmp4.ports.store import ObjectStore
from cefmp4.recording.digests import Digest, ShortFileError, combine_crcs, hash_range, new_sha256
from cefmp4.recording.file import SourceFile
from cefmp4.recording.write_guard import WriteGuard

log = structlog.get_logger()

SHORT = 4 * MIB
LONG = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 8
WHOLE_AT_ONCE = 8  # files that are sent in one piece
SENDS_AHEAD = 4  # parts of one stream that are hashed and wait for the wire


class DisturbedError(Exception):
    """The file may have changed since the proof began: what was read of it proves nothing."""


@dataclass(slots=True, kw_only=True)
class Proof:
    """What one reading of the whole file showed."""

    stamp: FileStamp
    in_one_piece: bool  # it goes as one object, at the end
    crcs: list[tuple[int, int]] = field(default_factory=list)  # (crc, size) in order
    sha256: str = ""
    changed: list[int] = field(default_factory=list)  # parts that had been sent with other bytes
    sent_early: int = 0
    copies: list[tuple[PartRange, int]] = field(default_factory=list)

    @property
    def crc64(self) -> int:
        return combine_crcs(self.crcs)

    def is_of_bytes_of(self, stored: Stream) -> bool:
        same = (stored.size, stored.crc64) == (self.stamp.size, self.crc64)
        return same and stored.sha256 in ("", self.sha256)


class Disturbance:
    """Says whether the file may have changed since a proof began. The guard knows from the kernel
    where that can tell; the stamp is compared in any case."""

    def __init__(self, source: SourceFile, guard: WriteGuard) -> None:
        self._source = source
        self._guard = guard
        self.stamp = source.stamp()

    def has_happened(self) -> bool:
        return self._guard.is_broken or self._source.stamp() != self.stamp

    def check(self) -> None:
        if self.has_happened():
            raise DisturbedError


class Finalizer:
    """`read`, then `store`, with one Disturbance over both. Between them the caller waits for the
    rest of the settle time."""

    def __init__(self, *, store: ObjectStore, uploader: Uploader, hashing: Executor) -> None:
        self._store = store
        self._uploader = uploader
        self._hashing = hashing
        self._sending_whole = FairGate(WHOLE_AT_ONCE)

    async def read(
        self,
        record: StreamRecord,
        source: SourceFile,
        disturbance: Disturbance,
        former: FormerGeneration | None,
    ) -> Proof:
        """Reads the file once from end to end, for CRC and SHA-256, and sends what the store does
        not hold yet or holds with other bytes, unless all of it goes in one piece."""
        plan, size = record.stream.plan, disturbance.stamp.size
        is_short = size <= plan.range_of(1).end and not record.stream.upload_id
        proof = Proof(stamp=disturbance.stamp, in_one_piece=is_short)
        digest = new_sha256()
        digests = (digest,) if _is_reading_again(record, size, former) else ()
        in_line = asyncio.Semaphore(SENDS_AHEAD)

        async def send_in_line(part: PartRange, crc64: int) -> None:
            try:
                await self._uploader.send_part(record, source, part, crc64)
            finally:
                in_line.release()

        try:
            with first_error():
                async with asyncio.TaskGroup() as group:
                    for part in plan.ranges_for(size):
                        crc64 = await self._hash(source, part, digests, disturbance)
                        proof.crcs.append((crc64, part.size))
                        if _is_held(record, part, crc64, proof) or proof.in_one_piece:
                            continue
                        if former is not None and former.has_same(part, crc64):
                            proof.copies.append((part, crc64))
                        else:
                            await self._uploader.begin(record)
                            await in_line.acquire()
                            group.create_task(send_in_line(part, crc64), name=f"part {part.number}")
        except (ShortFileError, ProofFailedError):
            raise DisturbedError from None
        proof.sha256 = digest.hexdigest() if digests else ""
        return proof

    async def _hash(
        self,
        source: SourceFile,
        part: PartRange,
        digests: tuple[Digest, ...],
        disturbance: Disturbance,
    ) -> int:
        def read() -> int:
            is_stopped = disturbance.has_happened
            return hash_range(source.fd, part.start, part.end, also=digests, is_stopped=is_stopped)

        return await asyncio.get_running_loop().run_in_executor(self._hashing, read)

    async def copy(
        self,
        record: StreamRecord,
        source: SourceFile,
        proof: Proof,
        disturbance: Disturbance,
        former: FormerGeneration,
    ) -> int:
        """What the former generation has of it, inside the store; returns how many parts."""
        with _noticing(disturbance):
            await self._uploader.begin(record)
            copying = [
                self._uploader.send_part(record, source, part, crc64, former)
                for part, crc64 in proof.copies
            ]
            return len(await together(copying))

    async def store(
        self, record: StreamRecord, source: SourceFile, proof: Proof, disturbance: Disturbance
    ) -> None:
        with _noticing(disturbance):
            if proof.in_one_piece:
                await self._store_whole(record, source, proof, disturbance)
            else:
                await self._complete(record, proof, disturbance)

    async def _store_whole(
        self, record: StreamRecord, source: SourceFile, proof: Proof, disturbance: Disturbance
    ) -> None:
        stream = record.stream

        async def put(if_absent: bool) -> str:
            async with self._sending_whole.enter(stream.relpath):
                disturbance.check()
                return await self._store.put_object(
                    stream.key,
                    source.range(0, proof.stamp.size),
                    content_type=names.content_type_of(stream.relpath),
                    metadata=object_metadata(stream),
                    crc64=proof.crc64,
                    if_absent=if_absent,
                )

        etag = await self._make_object(record, disturbance, put, what="object upload")
        record.object_made(etag)
        if proof.stamp.size:
            whole = Part(
                number=1,
                size=proof.stamp.size,
                crc64=proof.crc64,
                etag=etag,
                uploaded_at=time(),
            )
            await record.part_stored(whole)
            metrics.count_part(stream.id, whole.size, is_copy=False)

    async def _complete(self, record: StreamRecord, proof: Proof, disturbance: Disturbance) -> None:
        count = len(proof.crcs)
        await record.drop_parts([number for number in record.parts if number > count])
        parts = [record.parts[number] for number in range(1, count + 1)]
        stream = record.stream
        etag = await self._make_object(
            record,
            disturbance,
            lambda if_absent: self._store.complete_upload(
                stream.key,
                stream.upload_id,
                parts,
                crc64=proof.crc64,
                owner="" if stream.is_adopted else stream.id,
                if_absent=if_absent,
            ),
            what="completion",
        )
        record.object_made(etag)

    async def _make_object(
        self,
        record: StreamRecord,
        disturbance: Disturbance,
        make: Callable[[bool], Coroutine[None, None, str]],
        *,
        what: str,
    ) -> str:
        """Never over another recording."""

        async def make_rightly(if_absent: bool) -> str:
            await _check_rights(record, disturbance)
            return await make(if_absent)

        stream = record.stream
        return await make_own(self._store, stream.key, stream.id, make_rightly, what=what)


async def _check_rights(record: StreamRecord, disturbance: Disturbance) -> None:
    """The last word on who owns the stream and its key, just before it counts."""
    if not await record.save():
        raise KeyTakenError(f"{record.stream.key}: another stream holds the key")
    disturbance.check()


@contextmanager
def _noticing(disturbance: Disturbance) -> Iterator[None]:
    """A store that has got other bytes than those that were read may be right, or wrong: it depends
    on the file."""
    try:
        yield
    except ShortFileError:
        raise DisturbedError from None
    except ProofFailedError:
        disturbance.check()
        raise


def _is_reading_again(record: StreamRecord, size: int, former: FormerGeneration | None) -> bool:
    """Whether this is the second reading of most of the file, or must tell it from another, or is
    too short, or too long to stay in the page cache, to be worth another one."""
    if former is not None or not SHORT <= size <= LONG:
        return True
    return 2 * record.stored_bytes >= size


def _is_held(record: StreamRecord, part: PartRange, crc64: int, proof: Proof) -> bool:
    """Whether the store has these bytes already; counts what had to be sent in vain."""
    held = record.parts.get(part.number)
    if held is None:
        return False
    if held.size == part.size:  # a shorter one was the end of the file once, and no rewrite
        proof.sent_early += 1
        if held.crc64 == crc64:
            return True
        proof.changed.append(part.number)
    return False
