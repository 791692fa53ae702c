"""How the work on a stream ends, and what its record, the metrics and the log say of it then."""

from enum import StrEnum

from cefmp4 import metrics
from cefmp4.ingest.finalizer import Proof
from cefmp4.ingest.record import StreamRecord
from cefmp4.ingest.uploader import Uploader
from cefmp4.ingest.writer_profile import WriterProfiles
from cefmp4.model.stream import FileStamp, StreamState


class End(StrEnum):
    STORED = "stored"
    UNCHANGED = "unchanged"  # only the dates of a stored file had changed
    FAILED = "failed"
    TRUNCATED = "truncated"  # failed, and what is left of the file is a new stream
    DROPPED = "dropped"
    FENCED = "fenced"  # another instance goes on with it


class Ending:
    """`end` is None while there is none; what is proven when it is taken up was stored before.
    `proven`: the stamp of the open file when all of it had been read."""

    def __init__(
        self,
        *,
        record: StreamRecord,
        uploader: Uploader,
        writer_profiles: WriterProfiles,
    ) -> None:
        self._end = End.STORED if record.stream.is_proven else None
        self.proven: FileStamp | None = None
        self._record = record
        self._uploader = uploader
        self._writer_profiles = writer_profiles

    def __repr__(self) -> str:
        return f"<Ending {self._end}>"

    @property
    def end(self) -> End | None:
        return self._end

    def fenced(self) -> None:
        self._end = End.FENCED

    async def stored(self, proof: Proof) -> None:
        self.proven = proof.stamp
        metrics.parts_resent.inc(len(proof.changed))
        self._writer_profiles.learn(
            self._record.stream.relpath,
            sent_early=proof.sent_early,
            changed=len(proof.changed),
            head_changed=1 in proof.changed,
        )
        await self._record.proven(stamp=proof.stamp, crc64=proof.crc64, sha256=proof.sha256)
        metrics.stream_stored(self._record.stream)
        self._end = End.STORED

    async def unchanged(self, proof: Proof) -> None:
        if self._record.stream.upload_id:
            await self._uploader.abandon(self._record)
        self._record.seen(proof.stamp)  # not what was seen since
        self._end = End.UNCHANGED

    async def dropped(self, reason: str) -> None:
        await self._record.move_to(StreamState.DROPPED, reason)
        self._end = End.DROPPED

    async def failed(
        self, reason: str, end: End = End.FAILED, *, counted_as: str | None = None
    ) -> None:
        await self._uploader.abandon(self._record)
        await self._record.failed(reason, counted_as=counted_as or end.value)
        self._end = end
