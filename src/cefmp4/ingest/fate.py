"""What becomes of a stream: how the work on it ends, or why it begins again, and what its record,
the metrics and the log say of that."""

from dataclasses import dataclass, field
from enum import StrEnum

import structlog

from cefmp4 import metrics
from cefmp4.errors import KeyTakenError, ProofFailedError
from cefmp4.ingest.object_keys import KeyRefusedError, ObjectKeys
from cefmp4.ingest.proof import Proof
from cefmp4.ingest.record import StreamRecord
from cefmp4.ingest.rules import StaleOutcome
from cefmp4.ingest.uploader import Uploader
from cefmp4.ingest.writer_profile import WriterProfiles
from cefmp4.model.stream import FileStamp, StreamState

log = structlog.get_logger()

MAX_PROOF_FAILURES = 3  # with one upload; then it is abandoned for a new one


class End(StrEnum):
    STORED = "stored"
    UNCHANGED = "unchanged"  # only the dates of a stored file had changed
    FAILED = "failed"
    TRUNCATED = "truncated"  # failed, and what is left of the file is a new stream
    DROPPED = "dropped"
    FENCED = "fenced"  # another instance goes on with it


@dataclass(slots=True, kw_only=True)
class Fate:
    """`end` is None while there is none; what is proven when it is taken up was stored before.
    `proven`: the stamp of the open file when all of it had been read."""

    record: StreamRecord
    uploader: Uploader
    keys: ObjectKeys
    writer_profiles: WriterProfiles
    end: End | None = field(init=False)
    proven: FileStamp | None = field(default=None, init=False)
    _proof_failures: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.end = End.STORED if self.record.stream.is_proven else None

    def __repr__(self) -> str:
        return f"<Fate {self.end} proof_failures={self._proof_failures}>"

    # It ends.

    def fenced(self) -> None:
        self.end = End.FENCED

    async def stored(self, proof: Proof) -> None:
        self.proven = proof.stamp
        metrics.parts_resent.inc(len(proof.changed))
        self.writer_profiles.learn(
            self.record.stream.relpath,
            sent_early=proof.sent_early,
            changed=len(proof.changed),
            head_changed=1 in proof.changed,
        )
        await self.record.proven(stamp=proof.stamp, crc64=proof.crc64, sha256=proof.sha256)
        metrics.stream_stored(self.record.stream)
        self.end = End.STORED

    async def unchanged(self, proof: Proof) -> None:
        if self.record.stream.upload_id:
            await self.uploader.abandon(self.record)
        self.record.seen(proof.stamp)  # not what was seen since
        self.end = End.UNCHANGED

    async def gone(self, *, is_replaced: bool) -> None:
        """The file is not at its name any more, and will not turn up there."""
        if is_replaced:
            await self.uploader.abandon(self.record)
            await self._dropped("replaced: another file took its name")
        elif self.record.stream.upload_id:
            metrics.stale_outcomes.labels(StaleOutcome.MISSING).inc()
            reason = "missing: the file is gone from the watched folder"
            await self.failed(reason, counted_as="missing")
        else:
            await self._dropped("gone before anything was sent")

    async def _dropped(self, reason: str) -> None:
        await self.record.move_to(StreamState.DROPPED, reason)
        self.end = End.DROPPED

    async def failed(
        self, reason: str, end: End = End.FAILED, *, counted_as: str | None = None
    ) -> None:
        await self.uploader.abandon(self.record)
        await self.record.failed(reason, counted_as=counted_as or end.value)
        self.end = end

    async def truncated(self, size: int) -> None:
        sent = self.record.stream.sent_high
        reason = f"truncated: {sent} bytes had been sent, {size} are left"
        await self.failed(reason, End.TRUNCATED)
        metrics.stale_outcomes.labels(StaleOutcome.TRUNCATED).inc()

    # It goes on, and what was sent is sent again.

    async def overwritten(self, size: int) -> None:
        """By another recording, which is shorter."""
        sent = self.record.stream.sent_high
        log.info("overwritten by a shorter recording", sent=sent, on_disk=size)
        metrics.stale_outcomes.labels(StaleOutcome.OVERWRITTEN).inc()
        await self.record.drop_beyond(size)
        await self.record.forget_sent()

    async def upload_gone(self) -> None:
        log.warning("the multipart upload is gone from the store: starting it again")
        metrics.count_failure("upload_gone", self.record.stream.id)
        await self.record.upload_gone()

    async def distrusted(self, error: ProofFailedError) -> None:
        """The store does not hold what it confirmed. Nothing that is not proven is ever
        completed."""
        log.error("the proof failed, sending again", reason=str(error))
        metrics.count_failure("proof", self.record.stream.id)
        self._proof_failures += 1
        if self._proof_failures % MAX_PROOF_FAILURES == 0 and self.record.stream.upload_id:
            await self.uploader.abandon(self.record)
        else:
            await self.record.drop_parts(list(self.record.parts))
        await self.record.move_to(StreamState.UPLOADING)

    async def key_taken(self, error: KeyTakenError) -> None:
        """No bytes are lost: the file is still here, and whose object lies there keeps it."""
        log.warning("the key was taken meanwhile", reason=str(error))
        try:
            key = self.keys.key_instead(self.record.stream)
        except KeyRefusedError as refused:
            await self.failed(str(refused))
            return
        # S3 cannot give an upload another key, so all of it is sent again.
        await self.uploader.abandon(self.record)
        await self.record.moved_to_key(key)
