"""Has the jobs that a source offers begun: claims them, gives them to the engine, says that it has
them. Whatever ends it in between, the source offers them again, and the engine knows them."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import structlog

from cefmp4 import metrics
from cefmp4.errors import CefError, PermanentError, RefusedError, TransientError
from cefmp4.jobs.sources.asked import AskedJobs, NotAJobError, subject_of_ref
from cefmp4.log import redact
from cefmp4.model.job import JobEnd, JobSpec
from cefmp4.ports.jobs import JobDesk
from cefmp4.ports.sources import JobSource, Offer
from cefmp4.retry import patiently
from cefmp4.tasks import cancel_all

log = structlog.get_logger()

AT_A_TIME = 10


@dataclass(slots=True)
class SourceFigures:
    """What this process saw of one source."""

    waiting: int | None = None  # None: nobody could tell
    begun: int = 0
    known: int = 0  # before: offered twice, or begun again after a crash
    refused: int = 0
    trouble: str = ""  # why nothing comes from it right now

    def to_fields(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "waiting": self.waiting,
            "begun": self.begun,
            "known": self.known,
            "refused": self.refused,
            "trouble": redact(self.trouble),
        }


SOURCES: dict[str, SourceFigures] = {}  # of this process, by name


def figures_of(name: str) -> SourceFigures:
    return SOURCES.setdefault(name, SourceFigures())


def count(name: str, figures: SourceFigures, outcome: str) -> None:
    """One more job of this source of which that became."""
    setattr(figures, outcome, getattr(figures, outcome) + 1)
    metrics.source_jobs.labels(name, outcome).inc()


@dataclass(frozen=True, slots=True, kw_only=True)
class Feeder:
    source: JobSource
    desk: JobDesk
    asked: AskedJobs
    figures: SourceFigures = field(default_factory=SourceFigures)

    async def run(self) -> None:
        """Until it is cancelled, also where the client of a source swallows that."""
        name, task = self.source.name, asyncio.current_task()
        while not (task and task.cancelling()):
            if not await patiently(self._take_some, what=f"looking for jobs in {name}"):
                await patiently(self._until_more, what=f"waiting for jobs in {name}")

    async def _take_some(self) -> int:
        """How many offers are dealt with now."""
        try:
            async with self.source.offers(AT_A_TIME) as offers:
                dealt_with = [await self._deal_with(offer) for offer in offers]
            self.figures.waiting = await self.source.waiting()
        except CefError as error:
            self.figures.waiting, self.figures.trouble = None, str(error)
            metrics.source_waiting.labels(self.source.name).set(float("nan"))
            raise _healable(error) from error
        metrics.source_waiting.labels(self.source.name).set(self.figures.waiting)
        self.figures.trouble = ""
        return sum(dealt_with)

    async def _until_more(self) -> None:
        try:
            await self.source.until_more()
        except CefError as error:
            raise _healable(error) from error

    async def _deal_with(self, offer: Offer) -> bool:
        """False: it is left for another time."""
        fault, specs = offer.fault, list[JobSpec]()
        try:
            specs = [self._spec(offer, number) for number in range(len(offer.jobs))]
        except NotAJobError as error:
            fault = str(error)
        if fault:
            log.warning("not a job", source=self.source.name, ref=offer.ref, reason=redact(fault))
            await self.source.refuse(offer, fault)
            self._count("refused")
            return True
        for spec in specs:
            if not await self._begin(spec):
                return False
        await self.source.accept(offer, [spec.id for spec in specs])
        return True

    def _spec(self, offer: Offer, number: int) -> JobSpec:
        source = self.source
        name = offer.ref if len(offer.jobs) == 1 else f"{offer.ref}/{number}"
        return self.asked.spec(
            offer.jobs[number],
            source=source.name,
            subject=subject_of_ref(f"{source.name}/{source.place}", name),
            tells=(source.name,) if source.wants_reports else (),
            ref=offer.ref,
        )

    async def _begin(self, spec: JobSpec) -> bool:
        if await self.desk.submit(spec):
            self._count("begun")
            return True
        if self.source.repeats_mean_again and not await self._begin_again(spec):
            return False
        self._count("known")
        return True

    async def _begin_again(self, spec: JobSpec) -> bool:
        """Of a job that is known: whoever put it back into the source wants it once more. While the
        end of the former is being told, that would be overwritten."""
        job = await self.desk.find(spec.id)
        if job is None:
            log.warning("another has the place of a job", job_id=spec.id, source=self.source.name)
            return False
        if job.is_telling or not job.is_final:
            return not job.is_telling
        try:
            await self.desk.begin_again(spec)
        except RefusedError:
            return False  # it is at its very end
        return True

    def _count(self, outcome: str) -> None:
        count(self.source.name, self.figures, outcome)


def _healable(error: CefError) -> CefError:
    """A table that is missing, say: an operator heals it while we wait."""
    return TransientError(str(error)) if type(error) is PermanentError else error


@dataclass(frozen=True, slots=True)
class Reporter:
    """Tells a source of the end of its jobs."""

    source: JobSource

    async def __call__(self, end: JobEnd) -> None:
        await self.source.report(end)
        outcome = "complete" if end.is_complete else "failed"
        metrics.source_jobs.labels(self.source.name, outcome).inc()


@asynccontextmanager
async def feeding(feeders: Iterable[Feeder]) -> AsyncIterator[None]:
    """Until the context ends; what was claimed is given back then."""
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(feeder.run(), name=f"jobs from {feeder.source.name}")
            for feeder in feeders
        ]
        try:
            yield
        finally:
            await cancel_all(tasks)
