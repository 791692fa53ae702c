"""Turns a finished file into a proven object: read it once, send what differs, complete, compare.

The SHA-256 comes from the same reading, except for a file that is sent by it: that one was read for
sending only, so its SHA-256 is left to whoever describes it, when the wire is quiet.

The proof: every byte is read under a write guard that tells of any writer, every part the store
holds was checked by the store against the checksum of those very bytes, and the file has not
changed between the first read and the completion."""

import asyncio
import hashlib
import os
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Executor
from dataclasses import dataclass, field
from enum import StrEnum
from time import time
from typing import Any, Protocol, TypeVar

import structlog

from cefmp4 import metrics
from cefmp4.errors import KeyTakenError, ProofFailedError, first_error
from cefmp4.ingest.fairness import FairGate
from cefmp4.ingest.record import StreamRecord
from cefmp4.ingest.uploader import (
    FormerGeneration,
    Uploader,
    object_metadata,
    together,
)
from cefmp4.model import names
from cefmp4.model.part import MIB, Part, PartRange
from cefmp4.model.stream import FileStamp
from cefmp4.ports.store import ObjectStore
from cefmp4.recording.file import ShortFileError, SourceFile, combine_crcs, hash_range
from cefmp4.retry import patiently

log = structlog.get_logger()

T = TypeVar("T")

SHORT = 4 * MIB
LONG = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 8
WHOLE_AT_ONCE = 8  # files that are sent in one piece
SENDS_AHEAD = 4  # parts of one stream that are hashed and wait for the wire


class Outcome(StrEnum):
    STORED = "stored"
    UNCHANGED = "unchanged"  # the same bytes as the former generation: nothing to store
    DISTURBED = "disturbed"  # a writer came back


@dataclass(slots=True, kw_only=True)
class Proof:
    """What one reading of the whole file showed."""

    stamp: FileStamp
    crcs: list[tuple[int, int]] = field(default_factory=list)  # (crc, size) in order
    sha256: str = ""
    changed: list[int] = field(default_factory=list)  # parts that had been sent with other bytes
    sent_early: int = 0
    copies: list[tuple[PartRange, int]] = field(default_factory=list)

    @property
    def crc64(self) -> int:
        return combine_crcs(self.crcs)


class WhileThere(Protocol):
    def __call__(self, work: Coroutine[Any, Any, T], /) -> Awaitable[T | None]: ...


class Disturbance:
    """Says whether the file may have changed since a proof began. `tripped` comes from the kernel
    where it can tell; the stamp is compared in any case. `while_there` ends what it is given when
    the file goes away: None."""

    def __init__(
        self,
        source: SourceFile,
        tripped: Callable[[], bool],
        while_there: WhileThere,
    ) -> None:
        self._source = source
        self._tripped = tripped
        self.while_there = while_there
        self.stamp = source.stamp()

    def has_happened(self) -> bool:
        return self._tripped() or self._source.stamp() != self.stamp


class Finalizer:
    def __init__(self, *, store: ObjectStore, uploader: Uploader, hashing: Executor) -> None:
        self._store = store
        self._uploader = uploader
        self._hashing = hashing
        self._sending_whole = FairGate(WHOLE_AT_ONCE)

    async def finalize(
        self,
        record: StreamRecord,
        source: SourceFile,
        disturbance: Disturbance,
        *,
        former: FormerGeneration | None,
        settled: Callable[[], Awaitable[bool]],
    ) -> tuple[Outcome, Proof | None]:
        """`settled` waits for the rest of the settle time; False from it is a disturbance."""
        size = disturbance.stamp.size
        is_single = size <= record.stream.plan.range_of(1).end and not record.stream.upload_id
        try:
            proof = await disturbance.while_there(
                self._prove(record, source, disturbance, former, send=not is_single)
            )
        except (ShortFileError, ProofFailedError):
            return Outcome.DISTURBED, None
        if proof is None:
            return Outcome.DISTURBED, None
        if disturbance.has_happened() or not await settled() or disturbance.has_happened():
            return Outcome.DISTURBED, None
        if former is not None and self._is_unchanged(former, proof):
            return Outcome.UNCHANGED, proof
        try:
            if is_single:
                await self._store_whole(record, source, proof, disturbance)
            else:
                await self._complete(record, source, proof, former, disturbance)
        except (ShortFileError, ProofFailedError) as error:
            if disturbance.has_happened() or isinstance(error, ShortFileError):
                return Outcome.DISTURBED, None
            raise
        return Outcome.STORED, proof

    @staticmethod
    def _is_unchanged(former: FormerGeneration, proof: Proof) -> bool:
        same = (former.stream.size, former.stream.crc64) == (proof.stamp.size, proof.crc64)
        return same and former.stream.sha256 in ("", proof.sha256)

    async def _prove(
        self,
        record: StreamRecord,
        source: SourceFile,
        disturbance: Disturbance,
        former: FormerGeneration | None,
        *,
        send: bool,
    ) -> Proof:
        """Reads the file once from end to end, for CRC and SHA-256, and sends what the store does
        not hold yet or holds with other bytes."""
        stream = record.stream
        proof = Proof(stamp=disturbance.stamp)
        digest = hashlib.sha256()
        digests = (digest,) if _is_reading_again(record, proof.stamp.size, former) else ()
        in_line = asyncio.Semaphore(SENDS_AHEAD)
        loop = asyncio.get_running_loop()

        async def send_in_line(part: PartRange, crc64: int) -> None:
            try:
                await self._uploader.send_part(record, source, part, crc64)
            finally:
                in_line.release()

        with first_error():
            async with asyncio.TaskGroup() as group:
                for part in stream.plan.ranges_for(proof.stamp.size):
                    crc64 = await loop.run_in_executor(
                        self._hashing, _hash_of, source.fd, part, digests, disturbance.has_happened
                    )
                    proof.crcs.append((crc64, part.size))
                    if _is_held(record, part, crc64, proof):
                        continue
                    if former is not None and former.has_same(part, crc64):
                        proof.copies.append((part, crc64))
                    elif send:
                        await self._uploader.begin(record)
                        await in_line.acquire()
                        group.create_task(send_in_line(part, crc64), name=f"part {part.number}")
        proof.sha256 = digest.hexdigest() if digests else ""
        return proof

    async def _store_whole(
        self, record: StreamRecord, source: SourceFile, proof: Proof, disturbance: Disturbance
    ) -> None:
        stream = record.stream

        async def put(if_absent: bool) -> str:
            async with self._sending_whole.enter(stream.relpath):
                if disturbance.has_happened():
                    raise ShortFileError
                return await self._store.put_object(
                    stream.key,
                    source.range(0, proof.stamp.size),
                    content_type=names.content_type_of(stream.relpath),
                    metadata=object_metadata(stream, proof.crc64),
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

    async def _complete(
        self,
        record: StreamRecord,
        source: SourceFile,
        proof: Proof,
        former: FormerGeneration | None,
        disturbance: Disturbance,
    ) -> None:
        if proof.copies:
            await self._uploader.begin(record)
            copying = together(
                [
                    self._uploader.send_part(record, source, part, crc64, former)
                    for part, crc64 in proof.copies
                ]
            )
            if await disturbance.while_there(copying) is None:
                raise ShortFileError
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
        """Never over another recording. An object of this very stream may lie there, made before a
        crash, of which nobody was told: that one is replaced."""
        await _check_rights(record, disturbance)
        try:
            return await patiently(lambda: make(True), what=what)
        except KeyTakenError:
            key = record.stream.key
            stored = await patiently(lambda: self._store.head(key), what="object check")
            is_own = stored and stored.metadata.get(names.META_STREAM_ID) == record.stream.id
            if not is_own:
                raise
        log.info("an object of this stream was there, unrecorded: it is replaced", key=key)
        await _check_rights(record, disturbance)
        return await patiently(lambda: make(False), what=what)


async def _check_rights(record: StreamRecord, disturbance: Disturbance) -> None:
    """The last word on who owns the stream and its key, just before it counts."""
    if not await record.save():
        raise KeyTakenError(f"{record.stream.key}: another stream holds the key")
    if disturbance.has_happened():
        raise ShortFileError


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


def _hash_of(
    fd: int,
    part: PartRange,
    digests: tuple["hashlib._Hash", ...],
    is_stopped: Callable[[], bool],
) -> int:
    return hash_range(fd, part.start, part.end, also=digests, is_stopped=is_stopped)
