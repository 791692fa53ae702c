"""Open uploads of our folder that no stream claims: counted, and aborted after a grace."""

from dataclasses import dataclass

import structlog

from cefmp4 import metrics
from cefmp4.errors import CefError
from cefmp4.model import names
from cefmp4.model.folder import WatchedFolder
from cefmp4.model.object import OpenUpload
from cefmp4.model.part import Part
from cefmp4.ports.checkpoints import CheckpointStore
from cefmp4.ports.store import ObjectStore
from cefmp4.recording.digests import multipart_etag

log = structlog.get_logger()


@dataclass(slots=True, kw_only=True)
class OrphanSweeper:
    store: ObjectStore
    checkpoints: CheckpointStore
    prefix: str
    grace_s: float
    folder: WatchedFolder | None = None  # None: any

    async def find(self) -> list[OpenUpload]:
        """Costs as much as there are open uploads, however many streams are known."""
        uploads = [
            upload
            for upload in await self.store.list_uploads(self.prefix)
            if self.folder is None or self.folder.may_own(upload.key)
        ]
        # Asked after the listing, so that an upload begun in between is known by then.
        keys = list({upload.key for upload in uploads})
        known = await self.checkpoints.load_streams_of_keys(keys) if keys else []
        claimed = {stream.upload_id for stream in known}
        return [
            upload
            for upload in uploads
            if upload.upload_id not in claimed and not await self._is_claimed_by_id(upload)
        ]

    async def _is_claimed_by_id(self, upload: OpenUpload) -> bool:
        """By a stream that an older version began: those reserved no key."""
        stream_id = names.stream_id_in(upload.key)
        stream = await self.checkpoints.load_stream(stream_id) if stream_id else None
        return stream is not None and stream.upload_id == upload.upload_id

    async def step(self, now: float) -> list[OpenUpload]:
        """Returns the orphans that stay for now."""
        orphans = await self.find()
        old = [one for one in orphans if one.is_ours and self.is_old(one, now)]
        if old and await self.checkpoints.is_fresh(self.folder.id if self.folder else ""):
            old = []  # Redis was emptied: until it knows again what S3 knows, every upload is one
        for orphan in old:
            await self._end(orphan)
        left = [orphan for orphan in orphans if orphan not in old]
        metrics.orphan_uploads.set(len(left))
        return left

    def is_old(self, orphan: OpenUpload, now: float) -> bool:
        return now - orphan.initiated_at >= self.grace_s

    async def _end(self, upload: OpenUpload) -> None:
        """A server that failed in the middle of a Complete may keep the upload of an object that is
        there: to abort it may take the bytes of that object away."""
        try:
            if await self._is_completed_again(upload):
                log.warning("completed an upload again: its object is there", key=upload.key)
                return
            await self.store.abort_upload(upload.key, upload.upload_id)
            log.info("aborted an upload that no stream claims", key=upload.key)
        except CefError as error:
            metrics.count_failure("orphan_abort")
            log.warning("could not abort an orphan upload", key=upload.key, reason=str(error))

    async def _is_completed_again(self, upload: OpenUpload) -> bool:
        """Where the object of its key is made of the very parts of the upload."""
        stored = await self.store.head(upload.key)
        if stored is None:
            return False
        parts = [
            Part(number=one.number, size=one.size, crc64=0, etag=one.etag, uploaded_at=0.0)
            for one in await self.store.list_parts(upload.key, upload.upload_id)
        ]
        if not parts or stored.etag != multipart_etag(part.etag for part in parts):
            return False
        crc64 = stored.crc64 or 0  # which is only asked for where the server tells one
        await self.store.complete_upload(upload.key, upload.upload_id, parts, crc64=crc64)
        return True
