"""Finds stored recordings that lack what jobs make of them, and has it made: after an engine lost
its data, or where none was there before."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from cefmp4.errors import RefusedError, UnknownJobError
from cefmp4.metadata.document import read_document
from cefmp4.model import names
from cefmp4.model.job import FailReason, JobKind, JobSpec, JobState, spec_of_stream
from cefmp4.model.part import PartPlan
from cefmp4.model.stream import Stream
from cefmp4.outputs.publish import has_result
from cefmp4.ports.checkpoints import CheckpointStore
from cefmp4.ports.jobs import JobDesk
from cefmp4.ports.store import ObjectStore
from cefmp4.tasks import each

PRIORITY = -100  # what is recorded now comes first
AT_ONCE = 16


class Found(StrEnum):
    """What is so of a recording."""

    MADE = "made"  # its result is there
    SUBMITTED = "submitted"
    UNDER_WAY = "under_way"  # its job waits or runs
    FAILED = "failed"  # its job has, or was cancelled: for an operator to look at
    NOT_PLAYABLE = "not_playable"  # nothing can be made of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Backfill:
    """`plan`: how files are cut today. `with_made`: jobs whose result is there are begun, too; they
    find it, and keep it where results are kept today. `is_dry`: SUBMITTED is what would be."""

    store: ObjectStore
    checkpoints: CheckpointStore
    desk: JobDesk
    kind: JobKind
    bucket: str
    watch_dir: str
    plan: PartPlan
    max_attempts: int
    with_made: bool = False
    is_dry: bool = False

    async def recordings(self, prefix: str) -> list[Stream]:
        """Those of which Redis knows, and those in the bucket of which it does not."""
        streams = {
            stream.key: stream
            for stream in await self.checkpoints.load_streams()
            if stream.is_proven and stream.key.startswith(prefix)
        }
        keys = {stored.key: stored.etag async for stored in self.store.list_objects(prefix)}
        strangers = [
            key
            for key in keys
            if key not in streams and not names.is_own_key(key) and names.metadata_key(key) in keys
        ]

        async def read(key: str) -> None:
            found = await read_document(self.store, key, self.plan)
            if found and (found.stream.key, found.stream.etag) == (key, keys[key]):
                streams[key] = found.stream

        await each(strangers, read, at_once=AT_ONCE, name="read the document")
        return [stream for key, stream in sorted(streams.items()) if key in keys]

    async def run(self, streams: list[Stream], tell: Callable[[Stream, Found], None]) -> None:
        async def look(stream: Stream) -> None:
            tell(stream, await self._look(stream))

        await each(streams, look, at_once=AT_ONCE, name="look at the result")

    def spec_of(self, stream: Stream) -> JobSpec:
        return spec_of_stream(
            stream,
            kind=self.kind,
            bucket=self.bucket,
            watch_dir=self.watch_dir,
            max_attempts=self.max_attempts,
            priority=PRIORITY,
        )

    async def _look(self, stream: Stream) -> Found:
        if stream.playable is False:
            return Found.NOT_PLAYABLE
        if not self.with_made and await has_result(self.store, stream_id=stream.id):
            return Found.MADE
        spec = self.spec_of(stream)
        if not self.is_dry and await self.desk.submit(spec):
            return Found.SUBMITTED
        job = await self.desk.find(spec.id)
        if job is not None and not job.is_final:
            return Found.UNDER_WAY
        if job is not None and job.has_failed:
            return Found.FAILED
        if not self.is_dry:
            await self.desk.begin_again(spec)  # it is complete
        return Found.SUBMITTED


@dataclass(slots=True)
class Retried:
    begun: int = 0
    cancelled: int = 0  # they stay: somebody wanted that
    refused: int = 0


async def retry_failed(desk: JobDesk, limit: int, *, tell: Callable[[str, str], None]) -> Retried:
    """Goes on after each that is refused. `tell` hears of each job, and why it was not begun."""
    done = Retried()
    for job in await desk.latest([JobState.FAILED], limit):
        if job.reason is FailReason.CANCELLED:
            done.cancelled += 1
            continue
        try:
            await desk.retry(job.id)
        except (RefusedError, UnknownJobError) as error:
            done.refused += 1
            tell(job.id, str(error))
        else:
            done.begun += 1
            tell(job.id, "")
    return done
