"""What becomes of a stream when the store does not do as it said."""

import structlog

from cefmp4 import metrics
from cefmp4.errors import KeyTakenError, ProofFailedError
from cefmp4.ingest.ending import Ending
from cefmp4.ingest.object_keys import KeyRefusedError, ObjectKeys
from cefmp4.ingest.record import StreamRecord
from cefmp4.ingest.uploader import Uploader
from cefmp4.model.stream import StreamState

log = structlog.get_logger()

MAX_PROOF_FAILURES = 3  # with one upload; then it is abandoned for a new one


class StoreTrouble:
    def __init__(
        self, *, record: StreamRecord, uploader: Uploader, keys: ObjectKeys, ending: Ending
    ) -> None:
        self._record = record
        self._uploader = uploader
        self._keys = keys
        self._ending = ending
        self._proof_failures = 0

    def __repr__(self) -> str:
        return f"<StoreTrouble proof_failures={self._proof_failures}>"

    async def distrust(self, error: ProofFailedError) -> None:
        """The store does not hold what it confirmed. What was sent is sent again; nothing that is
        not proven is ever completed."""
        log.error("the proof failed, sending again", reason=str(error))
        metrics.count_failure("proof", self._record.stream.id)
        self._proof_failures += 1
        if self._proof_failures % MAX_PROOF_FAILURES == 0 and self._record.stream.upload_id:
            await self._uploader.abandon(self._record)
        else:
            await self._record.drop_parts(list(self._record.parts))
        await self._record.move_to(StreamState.UPLOADING)

    async def leave_key(self, error: KeyTakenError) -> None:
        """No bytes are lost: the file is still here, and whose object lies there keeps it."""
        log.warning("the key was taken meanwhile", reason=str(error))
        try:
            key = self._keys.key_instead(self._record.stream)
        except KeyRefusedError as refused:
            await self._ending.failed(str(refused))
            return
        # S3 cannot give an upload another key, so all of it is sent again.
        await self._uploader.abandon(self._record)
        await self._record.moved_to_key(key)
