"""Parts of one stream to the store: slot, hash, send, checkpoint. Never completes anything."""

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from time import monotonic, time
from typing import TypeVar

import structlog

from cefmp4 import metrics
from cefmp4.errors import ProofFailedError, UploadGoneError, first_error
from cefmp4.ingest.admitted import Admitted
from cefmp4.ingest.fairness import FairGate
from cefmp4.ingest.part_slots import PartSlots
from cefmp4.ingest.record import StreamRecord
from cefmp4.model import names
from cefmp4.model.part import Part, PartRange
from cefmp4.model.stream import Stream
from cefmp4.ports.store import ObjectStore
from cefmp4.recording.digests import ShortFileError, hash_range
from cefmp4.retry import patiently
from cefmp4.tasks import finish

log = structlog.get_logger()

T = TypeVar("T")

WHOLE_AT_ONCE = 8  # files that are sent in one piece
LAST_ANSWER_PATIENCE_S = 3.0


@dataclass(slots=True, kw_only=True)
class Uploader:
    store: ObjectStore
    slots: PartSlots
    hashing: Executor
    sending_whole: FairGate = field(default_factory=lambda: FairGate(WHOLE_AT_ONCE), init=False)

    async def send_full_parts(
        self, admitted: Admitted, parts: Iterable[PartRange], *, lag: int
    ) -> int:
        """Sends those of `parts` whose bytes are really written, side by side; returns how many."""
        return sum(await together([self._send_written(admitted, part, lag) for part in parts]))

    async def _send_written(self, admitted: Admitted, part: PartRange, lag: int) -> bool:
        source, end = admitted.source, part.end + lag

        def hash_written() -> int:
            if source.is_gone or not source.has_data_until(part.start, end):
                raise ShortFileError
            return hash_range(source.fd, part.start, part.end)

        async def send() -> None:
            async with self._slot_for(admitted.record):
                loop = asyncio.get_running_loop()
                crc64 = await loop.run_in_executor(self.hashing, hash_written)
                await self._store_part(admitted, part, crc64)

        if not await asyncio.to_thread(source.has_data_until, part.start, end):
            return False
        await self.begin(admitted.record)
        try:
            await patiently(send, what="part upload")
        except (ShortFileError, ProofFailedError):
            return False  # the writer changed it between our two reads: it comes again
        return True

    def _slot_for(self, record: StreamRecord) -> AbstractAsyncContextManager[None]:
        stream = record.stream
        return self.slots.enter(stream.relpath, stream.id, is_growing=record.has_grown)

    async def send_part(self, admitted: Admitted, part: PartRange, crc64: int) -> None:
        """Raises ProofFailedError when the bytes are no longer the ones that were hashed, and
        ShortFileError when the file is gone."""

        async def send() -> None:
            async with self._slot_for(admitted.record):
                if admitted.source.is_gone:
                    raise ShortFileError
                await self._store_part(admitted, part, crc64)

        is_copy = admitted.object_with(part, crc64) is not None
        await patiently(send, what="part copy" if is_copy else "part upload")

    async def _store_part(self, admitted: Admitted, part: PartRange, crc64: int) -> None:
        """Once: who has to try again waits without a slot, so that a sick stream holds none."""
        stream, started = admitted.record.stream, monotonic()
        place = (stream.key, stream.upload_id, part.number)
        former = admitted.object_with(part, crc64)
        if former is not None:
            etag = await self.store.copy_part(*place, source=former, start=part.start, end=part.end)
        else:
            body = admitted.source.range(part.start, part.end)
            etag = await self.store.put_part(*place, body, crc64=crc64)
        await admitted.record.part_stored(
            Part(number=part.number, size=part.size, crc64=crc64, etag=etag, uploaded_at=time())
        )
        metrics.part_latency.observe(monotonic() - started)
        metrics.count_part(stream.id, part.size, is_copy=former is not None)

    async def begin(self, record: StreamRecord) -> None:
        """Opens the multipart upload of a stream that has none yet. Not torn by a cancel: nothing
        but the answer tells which upload is to be aborted."""
        if not record.stream.upload_id:
            await finish(
                self._begin(record), name="upload start", patience_s=LAST_ANSWER_PATIENCE_S
            )

    async def _begin(self, record: StreamRecord) -> None:
        async with record.opening:
            stream = record.stream
            if stream.upload_id:
                return
            upload_id = await patiently(
                lambda: self.store.begin_upload(
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
                    lambda: self.store.abort_upload(key, upload_id), what="upload abort"
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
