"""After a restart: which parts of an open upload can be relied on. S3 and the disk decide."""

import asyncio
from concurrent.futures import Executor
from time import time

import structlog

from cefmp4.errors import UploadGoneError
from cefmp4.ingest.record import StreamRecord
from cefmp4.model import names
from cefmp4.model.object import ListedPart, OpenUpload
from cefmp4.model.part import Part
from cefmp4.ports.store import ObjectStore
from cefmp4.recording.digests import crc_and_md5, multipart_etag
from cefmp4.recording.file import SourceFile
from cefmp4.retry import patiently

log = structlog.get_logger()


class Recovery:
    def __init__(self, *, store: ObjectStore, hashing: Executor) -> None:
        self._store = store
        self._hashing = hashing

    async def resume(self, record: StreamRecord, source: SourceFile) -> None:
        """Makes the record say what the store really holds of this stream."""
        stream = record.stream
        uploads = await self._uploads_of(stream.key)
        if names.stream_id_in(stream.key) != stream.id:  # others may upload to such a key, too
            uploads = [upload for upload in uploads if upload.upload_id == stream.upload_id]
        upload = self._choose(uploads, stream.upload_id)
        for other in uploads:
            if other is not upload:  # begun just before a crash, and never written down
                await self._abort(other)
        if upload is None:
            if not stream.upload_id or not await self._was_completed(record):
                await record.upload_gone(sent_high=stream.sent_high)
            return
        if upload.upload_id != stream.upload_id:
            await record.opened(upload.upload_id)
        try:
            listed = await patiently(
                lambda: self._store.list_parts(upload.key, upload.upload_id), what="part listing"
            )
        except UploadGoneError:
            return  # the first use of it will tell, and start over
        await self._reconcile(record, source, {part.number: part for part in listed})

    async def _uploads_of(self, key: str) -> list[OpenUpload]:
        uploads = await patiently(lambda: self._store.list_uploads(key), what="upload listing")
        return [upload for upload in uploads if upload.key == key]

    @staticmethod
    def _choose(uploads: list[OpenUpload], known_id: str) -> OpenUpload | None:
        known = [upload for upload in uploads if upload.upload_id == known_id]
        if known:
            return known[0]
        return max(uploads, key=lambda upload: upload.initiated_at, default=None)

    async def _abort(self, upload: OpenUpload) -> None:
        log.info("aborting a second upload of the same stream", key=upload.key)
        await patiently(
            lambda: self._store.abort_upload(upload.key, upload.upload_id), what="upload abort"
        )

    async def _was_completed(self, record: StreamRecord) -> bool:
        """The crash may have come between the completion and its checkpoint: then the object is
        there, and completing it again only compares the two."""
        if not record.parts or not self._store.proof.etag_is_md5:
            return False
        stream = record.stream
        stored = await patiently(lambda: self._store.head(stream.key), what="object check")
        if stored is None or stored.etag != multipart_etag(
            record.parts[number].etag for number in sorted(record.parts)
        ):
            return False
        owner = stored.metadata.get(names.META_STREAM_ID)
        return owner == stream.id or stream.is_adopted or not self._store.proof.keeps_metadata

    async def _reconcile(
        self, record: StreamRecord, source: SourceFile, listed: dict[int, ListedPart]
    ) -> None:
        """Listings may have holes and checkpoints may lag: only what both agree on is kept, and
        what only the store knows is compared with the disk before it is believed."""
        wrong = [
            number
            for number, part in record.parts.items()
            if number not in listed
            or (listed[number].size, listed[number].etag) != (part.size, part.etag)
        ]
        await record.drop_parts(wrong)
        unknown = [part for number, part in listed.items() if number not in record.parts]
        adopted = 0
        for part in unknown:
            adopted += await self._adopt(record, source, part)
        log.info(
            "resumed the upload",
            parts=len(record.parts),
            adopted=adopted,
            distrusted=len(wrong) + len(unknown) - adopted,
        )

    async def _adopt(self, record: StreamRecord, source: SourceFile, part: ListedPart) -> bool:
        if not self._store.proof.etag_is_md5:
            return False
        cut = record.stream.plan.range_of(part.number)
        if part.size > cut.size:
            return False
        found = await asyncio.get_running_loop().run_in_executor(
            self._hashing, crc_and_md5, source.fd, cut.start, cut.start + part.size
        )
        if found is None or found[1] != part.etag:
            return False
        await record.part_stored(
            Part(
                number=part.number,
                size=part.size,
                crc64=found[0],
                etag=part.etag,
                uploaded_at=time(),
            )
        )
        return True
