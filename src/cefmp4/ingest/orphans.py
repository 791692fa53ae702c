"""Open uploads under our prefix that no stream claims: counted, and aborted after a grace."""

import structlog

from cefmp4 import metrics
from cefmp4.errors import CefError
from cefmp4.model import names
from cefmp4.model.object import OpenUpload
from cefmp4.ports import CheckpointStore, ObjectStore

log = structlog.get_logger()


class OrphanSweeper:
    def __init__(
        self,
        *,
        store: ObjectStore,
        checkpoints: CheckpointStore,
        prefix: str,
        grace_s: float,
    ) -> None:
        self._store = store
        self._checkpoints = checkpoints
        self._prefix = prefix
        self._grace_s = grace_s

    async def step(self, now: float) -> list[OpenUpload]:
        """Returns the orphans that stay for now."""
        uploads = await self._store.list_uploads(self._prefix)
        if not uploads:
            metrics.orphan_uploads.set(0)
            return []
        # Asked after the listing, so that an upload begun in between is known by then.
        claimed = {stream.upload_id for stream in await self._checkpoints.load_streams()}
        orphans = [upload for upload in uploads if upload.upload_id not in claimed]
        old = [upload for upload in orphans if self._may_abort(upload, now)]
        for upload in old:
            await self._abort(upload)
        left = [upload for upload in orphans if upload not in old]
        metrics.orphan_uploads.set(len(left))
        return left

    def _may_abort(self, upload: OpenUpload, now: float) -> bool:
        """Only a key with a stream id is surely ours: others may share the bucket and prefix."""
        is_ours = names.stream_id_in(upload.key) is not None
        return is_ours and now - upload.initiated_at >= self._grace_s

    async def _abort(self, upload: OpenUpload) -> None:
        try:
            await self._store.abort_upload(upload.key, upload.upload_id)
            log.info("aborted an upload that no stream claims", key=upload.key)
        except CefError as error:
            metrics.count_failure("orphan_abort")
            log.warning("could not abort an orphan upload", key=upload.key, reason=str(error))
