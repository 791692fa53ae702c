"""How a stream ends: described, handed over, its local file treated, and then remembered."""

import asyncio
import threading
from dataclasses import dataclass

import structlog

from cefmp4.errors import LeaseLostError, SourceError
from cefmp4.ingest.admitted import FormerGeneration
from cefmp4.ingest.after.describer import Describer
from cefmp4.ingest.after.handover import Handover
from cefmp4.ingest.after.local_file import LocalFilePolicy
from cefmp4.ingest.claims import Claims
from cefmp4.ingest.fate import End
from cefmp4.ingest.finished_index import FinishedIndex
from cefmp4.ingest.processor import StreamProcessor
from cefmp4.ingest.record import StreamRecord
from cefmp4.model import names
from cefmp4.model.stream import FileStamp, Stream, StreamState
from cefmp4.ports.store import ObjectStore
from cefmp4.recording.file import SourceFile
from cefmp4.retry import patiently

log = structlog.get_logger()


@dataclass(slots=True, kw_only=True)
class Completion:
    describer: Describer
    handover: Handover
    local_file: LocalFilePolicy
    index: FinishedIndex
    claims: Claims
    store: ObjectStore

    async def conclude(self, processor: StreamProcessor) -> bool:
        """Returns whether the file at this path is no longer the one that was dealt with. Raises
        LeaseLostError."""
        record, source, former = processor.record, processor.source, processor.admitted.former
        if processor.end is End.FENCED:
            raise LeaseLostError
        if processor.end is End.UNCHANGED and former is not None:
            await self._put_back(record, former)
            return await self._has_changed(processor)
        if processor.end is End.STORED:
            await self.finish(record, source, processor.fate.proven)
        elif processor.end in (End.FAILED, End.DROPPED):
            if record.stream.may_start_again and await self._has_come_back(source):
                await record.release()
                return True
            self.index.add(record.stream)
        await record.release()
        if processor.end is End.TRUNCATED:
            return True
        return await self._has_changed(processor)

    async def finish(
        self, record: StreamRecord, source: SourceFile | None, proven: FileStamp | None = None
    ) -> None:
        """From the proven object to the end. A crash on the way repeats it from the start, which
        changes nothing: the document is the same, the local file is gone, the job is known.
        `proven`: see LocalFilePolicy."""
        has_left = source is None
        if record.stream.state is StreamState.STORED:
            await self.describer.describe(record, source)
            if source is not None:
                has_left = await self._treat_local_file(record.stream, source, proven)
            await record.described(owes_jobs=self.handover.wants(record.stream))
            stream = record.stream
            log.info(
                "stored and proven", file_path=stream.relpath, bytes=stream.size, key=stream.key
            )
        elif record.stream.state is StreamState.DESCRIBED:  # found again in S3; its job may be lost
            await record.described(owes_jobs=self.handover.wants(record.stream))
        if record.stream.owes_jobs:
            await self.handover.now_or_later(record)
        while record.written_path != record.stream.relpath:
            await record.save()  # it was renamed after the record was written
        if has_left:
            self.index.show(record.stream)
        else:
            self.index.add(record.stream)

    @staticmethod
    async def _has_come_back(source: SourceFile) -> bool:
        """Under its name, or under the one of a rename that was told too late."""
        try:
            return (await asyncio.to_thread(source.look)).in_place
        except (SourceError, OSError):
            return False

    @staticmethod
    async def _has_changed(processor: StreamProcessor) -> bool:
        """Also where it cannot be seen: whoever takes the path up again waits until it can."""
        try:
            look = await asyncio.to_thread(processor.source.look)
        except (SourceError, OSError):
            return True
        stamp = processor.record.stream.stamp
        is_same = stamp is not None and stamp.is_unchanged(look.stamp)
        is_ended_well = processor.end in (End.STORED, End.UNCHANGED)
        return look.is_replaced or (is_ended_well and look.in_place and not is_same)

    async def _put_back(self, record: StreamRecord, former: FormerGeneration) -> None:
        """Only the dates of the file changed: the former generation goes on, with the new dates,
        and under the name that the file has by now."""
        await record.release()
        await self.claims.forget(record.stream)
        latest = record.stream
        if latest.relpath != former.stream.relpath:
            self.index.remove(former.stream.relpath)
        stream = former.stream.found_at(latest.relpath, latest.stamp)
        written = await self.claims.write(stream, former.parts)
        self.index.add(written or stream)
        log.info("only the dates of a stored file changed", file_path=stream.relpath)

    async def _treat_local_file(
        self, stream: Stream, source: SourceFile, proven: FileStamp | None
    ) -> bool:
        """Whether it is gone from its place."""
        if self.local_file.keeps:
            return False
        stop = threading.Event()
        try:
            if proven is None:
                await self._check_object(stream)
            await asyncio.to_thread(self.local_file.apply, stream, source, proven, stop.is_set)
        except (SourceError, OSError) as error:
            log.warning("the local file stays", file_path=stream.relpath, reason=str(error))
            return False
        finally:
            stop.set()  # a cancelled wait must not leave the thread copying
        return True

    async def _check_object(self, stream: Stream) -> None:
        """Where the proof is of another run, Redis alone tells of it, and whoever may write there
        can claim one: then the store is asked."""
        found = await patiently(lambda: self.store.head(stream.key), what="object check")
        if found is None:
            raise SourceError("its object is not in the store")
        owner = found.metadata.get(names.META_STREAM_ID, stream.id)
        is_ours = (found.size, found.etag, owner) == (stream.size, stream.etag, stream.id)
        if not is_ours or found.crc64 not in (None, stream.crc64):
            raise SourceError("the object in the store is another one")

    async def bring_back(self, root: str, stream: Stream) -> None:
        if stream.state is StreamState.STORED:
            await asyncio.to_thread(self.local_file.bring_back, root, stream)
