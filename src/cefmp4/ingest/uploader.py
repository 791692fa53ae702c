"""Parts of one stream to the store: slot, hash, send, checkpoint. Never completes anything."""

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from time import monotonic, time
from typing import TypeVar

import structlog

from cefmp4 import metrics
from cefmp4.errors import ProofFailedError, UploadGoneError, first_error
from cefmp4.ingest.part_slots import PartSlots
from cefmp4.ingest.record import StreamRecord
from cefmp4.model import names
from cefmp4.model.object import StoredObject
from cefmp4.model.part import Part, PartRange
from cefmp4.model.stream import Stream
from cefmp4.ports.store import ObjectStore
from cefmp4.recording.digests import ShortFileError, hash_range
from cefmp4.recording.file import SourceFile
from cefmp4.retry import patiently

log = structlog.get_logger()

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class FormerGeneration:
    """The object this file was stored as before it changed: its unchanged parts are copied inside
    the store instead of being sent again."""

    stored: StoredObject
    stream: Stream
    parts: dict[int, Part]

    def has_same(self, part: PartRange, crc64: int) -> bool:
        former = self.parts.get(part.number)
        return former is not None and (former.size, former.crc64) == (part.size, crc64)


class Uploader:
    def __init__(self, *, store: ObjectStore, slots: PartSlots, hashing: Executor) -> None:
        self._store = store
        self._slots = slots
        self._hashing = hashing

    async def send_full_parts(
        self,
        record: StreamRecord,
        source: SourceFile,
        parts: Iterable[PartRange],
        *,
        lag: int,
        former: FormerGeneration | None,
    ) -> int:
        """Sends those of `parts` whose bytes are really written, side by side; returns how many."""
        sent = await together(
            [self._send_if_written(record, source, part, lag, former) for part in parts]
        )
        return sum(sent)

    async def _send_if_written(
        self,
        record: StreamRecord,
        source: SourceFile,
        part: PartRange,
        lag: int,
        former: FormerGeneration | None,
    ) -> bool:
        end = part.end + lag
        if not await asyncio.to_thread(source.has_data_until, part.start, end):
            return False
        await self.begin(record)

        async def send() -> None:
            async with self._slot_for(record):
                crc64 = await self._hash_written(source, part, lag)
                await self._store_part(record, source, part, crc64, former)

        try:
            await patiently(send, what="part upload")
        except (ShortFileError, ProofFailedError):
            return False  # the writer changed it between our two reads: it comes again
        return True

    def _slot_for(self, record: StreamRecord) -> AbstractAsyncContextManager[None]:
        stream = record.stream
        return self._slots.take(stream.id, stream.relpath, is_growing=record.has_grown)

    async def _hash_written(self, source: SourceFile, part: PartRange, lag: int) -> int:
        def read() -> int:
            if source.is_gone or not source.has_data_until(part.start, part.end + lag):
                raise ShortFileError
            return hash_range(source.fd, part.start, part.end)

        return await asyncio.get_running_loop().run_in_executor(self._hashing, read)

    async def send_part(
        self,
        record: StreamRecord,
        source: SourceFile,
        part: PartRange,
        crc64: int,
        former: FormerGeneration | None = None,
    ) -> None:
        """Raises ProofFailedError when the bytes are no longer the ones that were hashed, and
        ShortFileError when the file is gone."""

        async def send() -> None:
            async with self._slot_for(record):
                if source.is_gone:
                    raise ShortFileError
                await self._store_part(record, source, part, crc64, former)

        is_copy = former is not None and former.has_same(part, crc64)
        await patiently(send, what="part copy" if is_copy else "part upload")

    async def _store_part(
        self,
        record: StreamRecord,
        source: SourceFile,
        part: PartRange,
        crc64: int,
        former: FormerGeneration | None,
    ) -> None:
        """Once: who has to try again waits without a slot, so that a sick stream holds none."""
        stream, started = record.stream, monotonic()
        place = (stream.key, stream.upload_id, part.number)
        is_copy = former is not None and former.has_same(part, crc64)
        if is_copy and former is not None:
            etag = await self._store.copy_part(
                *place, source=former.stored, start=part.start, end=part.end
            )
        else:
            body = source.range(part.start, part.end)
            etag = await self._store.put_part(*place, body, crc64=crc64)
        await record.part_stored(
            Part(number=part.number, size=part.size, crc64=crc64, etag=etag, uploaded_at=time())
        )
        metrics.part_latency.observe(monotonic() - started)
        metrics.count_part(stream.id, part.size, is_copy=is_copy)

    async def begin(self, record: StreamRecord) -> None:
        """Opens the multipart upload of a stream that has none yet."""
        async with record.opening:
            stream = record.stream
            if stream.upload_id:
                return
            upload_id = await patiently(
                lambda: self._store.begin_upload(
                    stream.key,
                    content_type=names.content_type_of(stream.relpath),
                    metadata=object_metadata(stream),
                ),
                what="upload start",
            )
            await record.opened(upload_id)

    async def abandon(self, record: StreamRecord) -> None:
        """Aborts the upload and forgets its parts; the stream may begin another."""
        key, upload_id = record.stream.key, record.stream.upload_id
        if upload_id:
            try:
                await patiently(
                    lambda: self._store.abort_upload(key, upload_id), what="upload abort"
                )
            except UploadGoneError:
                log.info("the upload was gone already")
        await record.upload_gone()


async def together(steps: Sequence[Coroutine[None, None, T]]) -> list[T]:
    """Runs the steps side by side; the first error ends the others."""
    with first_error():
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(step) for step in steps]
    return [task.result() for task in running]


def object_metadata(stream: Stream) -> dict[str, str]:
    return {
        names.META_STREAM_ID: stream.id,
        **({names.META_FOLDER: stream.folder} if stream.folder else {}),
        names.META_PART_BASE: str(stream.part_base),
        names.META_PART_SIZING: stream.part_sizing.value,
    }
