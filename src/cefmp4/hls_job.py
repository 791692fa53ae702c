"""HLS as a job: which bytes it reads, what its slot allows, and what its steps are."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from cefmp4.errors import PermanentError, SourceError, TransientError
from cefmp4.hls.encoders import count_fallback
from cefmp4.hls.make import HlsEncoder
from cefmp4.hls.result import NeedsEncoderError, Tier, document
from cefmp4.jobs.steps import Accepted, JobProcedure, Made, NeedsSlotError, StepContext
from cefmp4.media.ffmpeg_run import Pace
from cefmp4.media.loopback import Loopback, RemoteObject
from cefmp4.media.source import MediaSource
from cefmp4.model.job import JobInput, JobProgress, JobSpec, SlotKind
from cefmp4.outputs import leftovers, publish
from cefmp4.outputs.names import RESULT, hls_prefix
from cefmp4.outputs.publish import SOURCE, find_published
from cefmp4.outputs.sink import SegmentSink
from cefmp4.ports.results import JobResult, ResultStore
from cefmp4.ports.store import ObjectStore
from cefmp4.recording.digests import holds_crc
from cefmp4.recording.file import SourceFile
from cefmp4.results.objects import ACCEPTED_AT, ATTEMPT
from cefmp4.storage.s3.errors import KeyMissingError

log = structlog.get_logger()

_ALLOWED = {None: Tier.COPY, SlotKind.CPU: Tier.CPU, SlotKind.GPU: Tier.GPU}


class FoundObject(RemoteObject, Protocol):
    @property
    def etag(self) -> str: ...


class ReadableStore(ObjectStore, Protocol):
    """A store whose objects can be read as they were when they were found."""

    async def find_object(self, key: str, *, bucket: str = "") -> FoundObject: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HlsJobs:
    store: ReadableStore
    bucket: str
    encoder: HlsEncoder
    results: tuple[ResultStore, ...]  # the last one is ours, where `_found` looks
    watch_dir: str  # local files are read below it alone, whatever a record names

    @property
    def procedure(self) -> JobProcedure:
        return JobProcedure(make=self.make, publish=self.publish, discard=self.discard)

    async def make(self, context: StepContext) -> Made:
        spec = context.spec
        if found := await self._found(spec):
            log.info("made before", stream_id=spec.subject)
            return Made(summary=found, is_published=True)
        sink = SegmentSink(
            self.store, stream_id=spec.subject, bucket=self.bucket, attempt=context.attempt
        )
        async with self._opened(spec.input) as source:
            fd = source.fd
            try:
                done = await self.encoder.encode(
                    source,
                    sink,
                    allowed=_ALLOWED[context.slot],
                    progress=lambda pace: context.report(_shown(pace)),
                )
            except NeedsEncoderError as error:
                raise NeedsSlotError(str(error)) from error
            except PermanentError:
                await _check_unchanged(fd, context)  # then the file was the reason, not the object
                raise
            await _check_unchanged(fd, context)
        for tried in done.fallbacks:
            count_fallback(tried)
        return Made(summary=_summary(document(done)))

    async def _found(self, spec: JobSpec) -> dict[str, Any] | None:
        """The engine may have forgotten it since: then the job is new, and its work is done."""
        if not spec.input.etag:
            return None  # nothing tells whether it is the same object
        found = await find_published(
            self.store, stream_id=spec.subject, source=_source_of(spec.input)
        )
        try:
            summary = _summary(found) if found else None
        except (KeyError, TypeError):
            return None  # of another version
        if found is None or summary is None:
            return None
        accepted = Accepted(
            attempt=str(found.get(ATTEMPT, "")), at=float(found.get(ACCEPTED_AT, 0.0))
        )
        return summary | await self._keep(spec, accepted, found)  # another store may lack it yet

    async def publish(self, spec: JobSpec, accepted: Accepted) -> dict[str, Any]:
        """The rows first: who finds the playlists finds them, too."""
        subject, attempt = spec.subject, accepted.attempt
        rows = await publish.read_staged(self.store, RESULT, stream_id=subject, attempt=attempt)
        document = json.loads(rows) | {SOURCE: _source_of(spec.input)}
        kept = await self._keep(spec, accepted, document)
        await publish.publish(self.store, stream_id=subject, attempt=attempt)
        return kept

    async def _keep(
        self, spec: JobSpec, accepted: Accepted, document: dict[str, Any]
    ) -> dict[str, Any]:
        """Where it is now, for the summary."""
        result = JobResult(
            job_id=spec.id,
            kind=spec.kind,
            subject=spec.subject,
            source=spec.input,
            attempt=accepted.attempt,
            accepted_at=accepted.at,
            document=document,
        )
        return {"stored_in": [await store.keep(result) for store in self.results]}

    async def discard(self, spec: JobSpec, attempt: str) -> None:
        """Not of what players find: whoever reaches the engine may ask for an old step again, and
        then cancel it."""
        if await publish.is_published(self.store, stream_id=spec.subject, attempt=attempt):
            log.warning("what is published stays", stream_id=spec.subject, attempt=attempt)
            return
        await leftovers.remove_attempt(self.store, stream_id=spec.subject, attempt=attempt)

    @asynccontextmanager
    async def _opened(self, source: JobInput) -> AsyncIterator[MediaSource]:
        with _opened_file(source, self.watch_dir) as fd:
            if fd is not None:
                yield MediaSource.of_file(fd)
                return
            found = await self._remote(source)
            async with Loopback(found).open() as remote:
                yield remote

    async def _remote(self, source: JobInput) -> FoundObject:
        if not source.key:
            raise PermanentError(
                f"the file {source.path} is gone, has changed, or is not in WATCH_DIR"
            )
        try:
            found = await self.store.find_object(source.key, bucket=source.bucket)
        except KeyMissingError:
            raise PermanentError(f"there is no such object: {source.key}") from None
        if source.etag and found.etag != source.etag:
            raise PermanentError(f"the object {source.key} was replaced")
        return found


@contextmanager
def _opened_file(source: JobInput, watch_dir: str) -> Iterator[int | None]:
    """The local file, if this host has it and it is still the one that was proven."""
    file = _open_same(source, watch_dir)
    with file or nullcontext():
        yield file.fd if file else None


def _open_same(source: JobInput, watch_dir: str) -> SourceFile | None:
    """Whoever may write to Redis names any file of this machine: only what lies in the watched
    folder, without a link on the way, is looked at."""
    top = f"{watch_dir.rstrip('/')}/"
    if not source.path.startswith(top):
        return None
    try:
        file = SourceFile.open(watch_dir, source.path[len(top) :])
        if source.stamp.is_unchanged(file.stamp()):
            return file
    except (SourceError, OSError, ValueError):
        return None
    file.close()
    return None


async def _check_unchanged(fd: int | None, context: StepContext) -> None:
    """A writer that came back meanwhile made a mixture of what was read. The object is still the
    proven one: the next attempt takes that. A rename or a removal, which change `ctime` alone, are
    fine; but so does a writer that sets the date back, so that then all of the file is compared
    with what was proven. Bytes that were written and taken back before the end are not noticed."""
    if fd is None:
        return
    source = context.spec.input
    if not await asyncio.to_thread(_is_as_it_was, fd, source, context.ended.is_set):
        raise TransientError(f"the file {source.path} changed while it was read")


def _is_as_it_was(fd: int, source: JobInput, is_stopped: Callable[[], bool]) -> bool:
    """Of a file that no stream stands for, no checksum is known: there the date must do."""
    facts = os.fstat(fd)
    if (facts.st_size, facts.st_mtime_ns) != (source.size, source.mtime_ns):
        return False
    if facts.st_ctime_ns == source.ctime_ns or not source.key:
        return True
    return holds_crc(fd, 0, source.size, source.crc64, is_stopped=is_stopped)


def _shown(pace: Pace) -> JobProgress:
    return JobProgress(
        percent=round(100 * pace.fraction, 1),
        speed=round(pace.speed, 2),
        fps=round(pace.fps, 1),
        eta_seconds=pace.eta_s,
        step="encode",
    )


def _source_of(source: JobInput) -> dict[str, Any]:
    """What tells one object from every other."""
    return {
        "bucket": source.bucket,
        "key": source.key,
        "size": source.size,
        "etag": source.etag,
    }


def _summary(made: dict[str, Any]) -> dict[str, Any]:
    """What the engine keeps of a result document; the rows stay there."""
    return {
        "tier": made["tier"],
        "master_key": made["master_key"],
        "result_key": hls_prefix(made["stream_id"]) + RESULT,
        "poster_key": made["poster_key"],
        "duration_seconds": round(made["duration_seconds"], 3),
        "speed": round(made["speed"], 2),
        "renditions": [track["name"] for track in made["renditions"]],
        "segments": sum(len(track["segments"]) for track in made["renditions"]),
        "bytes": made["total_bytes"],
        "fallbacks": made["fallbacks"],
        "warnings": made["warnings"],
        "warning_texts": made.get("warning_texts", []),  # none in documents of before
    }
