"""Object → metadata: probes the local file and stores the document beside the object."""

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import structlog

from cefmp4 import metrics
from cefmp4.errors import SourceError
from cefmp4.ingest.fairness import FairGate
from cefmp4.ingest.object_keys import make_own
from cefmp4.ingest.part_slots import PartSlots
from cefmp4.ingest.record import StreamRecord
from cefmp4.metadata.document import build_document, read_document
from cefmp4.model import names
from cefmp4.model.media import MediaInfo
from cefmp4.model.part import MIB
from cefmp4.model.stream import Stream
from cefmp4.ports.media import MediaProbe
from cefmp4.ports.store import ObjectStore
from cefmp4.recording.digests import crc_of, new_sha256
from cefmp4.recording.file import SourceFile
from cefmp4.recording.identity import Identity
from cefmp4.retry import patiently

log = structlog.get_logger()

MAX_PROBES = 2  # a probe is a process with memory of its own
PATIENCE_S = 10.0  # that a description waits for the wire to be quiet
READ_BACK_BYTES = 8 * MIB


@dataclass(slots=True, kw_only=True)
class Describer:
    store: ObjectStore
    probe: MediaProbe
    slots: PartSlots
    identity: Identity
    bucket: str
    watch_dir: str
    _probing: FairGate = field(default_factory=lambda: FairGate(MAX_PROBES), init=False)

    async def describe(self, record: StreamRecord, source: SourceFile | None) -> None:
        """`source` None: the local file is gone, which it may be because this was done before.
        Where it holds other bytes by now, it is as good as gone."""
        stream = record.stream
        if source is not None and not await self._is_proven_still(source, stream):
            source = None
        if source is None and await self._was_described(stream):
            return
        await self.slots.quiet(PATIENCE_S)  # sending is more urgent than describing
        sha256 = stream.sha256 or await self._sha256(stream, source)
        media = await self._look_into(stream, source)
        record.examined(sha256=sha256, playable=media.playable)
        stream = record.stream
        document = build_document(
            stream,
            list(record.parts.values()),
            media,
            bucket=self.bucket,
            watch_dir=self.watch_dir,
            processed_at=time.time(),
        )
        await self._put(stream, document)
        metrics.stream_described(stream, time.time())

    async def _put(self, stream: Stream, document: bytes) -> None:
        key, crc64 = names.metadata_key(stream.key), crc_of(document)

        async def put(if_absent: bool) -> None:
            await self.store.put_object(
                key,
                document,
                content_type="application/json",
                metadata={names.META_STREAM_ID: stream.id},
                crc64=crc64,
                if_absent=if_absent,
            )

        await make_own(self.store, key, stream.id, put, what="metadata upload")

    async def _is_proven_still(self, source: SourceFile, stream: Stream) -> bool:
        """A rename or a touch changes the stamp, not the bytes; it is rare enough to read them. A
        file that cannot be read any more is as good as gone."""
        try:
            stamp = (await asyncio.to_thread(source.look)).stamp
            if source.is_lost:
                return False
            if stream.stamp is not None and stream.stamp.is_unchanged(stamp):
                return True
            return await self.identity.holds(source, stream)
        except (SourceError, OSError) as error:
            log.info("the local file cannot be read", reason=str(error))
            return False

    async def _was_described(self, stream: Stream) -> bool:
        """A document that was made from the local file is better than what can be made now."""
        key = names.metadata_key(stream.key)
        if not await patiently(lambda: self.store.head(key), what="object check"):
            return False
        found = await read_document(self.store, stream.key, stream.plan)
        return found is not None and (found.stream.id, found.stream.etag) == (
            stream.id,
            stream.etag,
        )

    async def _sha256(self, stream: Stream, source: SourceFile | None) -> str:
        """Of the proven bytes: from the local file if it still has them, else from the object."""
        digest = new_sha256()
        with suppress(SourceError, OSError):
            if source is not None and await self.identity.holds(source, stream, also=(digest,)):
                return digest.hexdigest()
        digest = new_sha256()
        for start in range(0, stream.size, READ_BACK_BYTES):
            end = min(start + READ_BACK_BYTES, stream.size)
            data = await patiently(partial(self.store.read, stream.key, start, end), what="reading")
            await asyncio.to_thread(digest.update, data)
        return digest.hexdigest()

    async def _look_into(self, stream: Stream, source: SourceFile | None) -> MediaInfo:
        if source is None:
            return MediaInfo(reason="the local file went or changed before it could be examined")
        if not await self._is_proven_still(source, stream):  # this may be a while later
            return MediaInfo(reason="the local file changed before it could be examined")
        async with self._probing.enter(stream.relpath):
            media = await self.probe.probe(source.fd)
        if media.playable is False:
            # A verdict, not a failure of ours: the file is stored and described as what it is.
            log.info("not playable", file_path=stream.relpath, reason=media.reason)
        elif media.playable is None:
            log.warning("could not be examined", file_path=stream.relpath, reason=media.reason)
            metrics.count_failure("metadata", stream.id)
        return media
