"""Object → metadata: probes the local file and stores the document beside the object."""

import asyncio
import time

import structlog

from cefmp4 import metrics
from cefmp4.ingest.record import StreamRecord
from cefmp4.ingest.source import SourceFile, crc_of
from cefmp4.metadata.document import build_document, to_json
from cefmp4.model import names
from cefmp4.model.media import MediaInfo
from cefmp4.model.stream import StreamState
from cefmp4.ports import MediaProbe, ObjectStore
from cefmp4.retry import patiently

log = structlog.get_logger()

MAX_PROBES = 2  # a probe is a process with memory of its own


class Describer:
    def __init__(
        self, *, store: ObjectStore, probe: MediaProbe, bucket: str, watch_dir: str
    ) -> None:
        self._store = store
        self._probe = probe
        self._bucket = bucket
        self._watch_dir = watch_dir
        self._probing = asyncio.Semaphore(MAX_PROBES)

    async def describe(self, record: StreamRecord, source: SourceFile | None) -> None:
        stream = record.stream
        media = await self._look_into(record, source)
        stream.playable = media.playable
        document = to_json(
            build_document(
                stream,
                list(record.parts.values()),
                media,
                bucket=self._bucket,
                watch_dir=self._watch_dir,
                processed_at=time.time(),
            )
        )
        await patiently(
            lambda: self._store.put_object(
                names.metadata_key(stream.key),
                document,
                content_type="application/json",
                metadata={names.META_STREAM_ID: stream.id},
                crc64=crc_of(document),
            ),
            what="metadata upload",
        )
        await record.move_to(StreamState.DESCRIBED)
        metrics.stream_described(stream, time.time())

    async def _look_into(self, record: StreamRecord, source: SourceFile | None) -> MediaInfo:
        if source is None or source.stamp() != record.stream.stamp:
            return MediaInfo(reason="the local file changed or went before it could be examined")
        async with self._probing:
            media = await self._probe.probe(source.path, source.fd)
        if not media.playable:
            log.warning("not playable", path=record.stream.relpath, reason=media.reason)
            metrics.count_failure("metadata", record.stream.id)
        return media
