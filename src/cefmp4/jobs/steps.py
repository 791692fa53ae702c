"""One step of a job on this host: what a kind of job brings, what the host gives it, and what its
errors mean. Knows no engine."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import structlog

from cefmp4 import metrics
from cefmp4.errors import (
    AccessDeniedError,
    BucketMissingError,
    CefError,
    PermanentError,
    ProgramMissingError,
    ServerUnreachableError,
    TablesMissingError,
    ThrottledError,
    TransientError,
)
from cefmp4.jobs.flow import Answer, Order, StepError, Trouble
from cefmp4.jobs.outcomes import StepOutcome, count_answer, count_step, count_trouble
from cefmp4.jobs.slots import Slots
from cefmp4.jobs.workplace import NoRoomError, Workplace
from cefmp4.model.job import JobEnd, JobKind, JobProgress, JobSpec, SlotKind, Step
from cefmp4.reachability import level_of

log = structlog.get_logger()

AWAY = (
    ServerUnreachableError,
    ThrottledError,
    AccessDeniedError,
    BucketMissingError,
    TablesMissingError,
    NoRoomError,
    ProgramMissingError,
)


class NeedsSlotError(CefError):
    """The job turns out to need a slot, and this step has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepContext:
    """What a procedure is given. Its task is cancelled when the step must end; `ended` is for
    threads, which no cancel reaches."""

    spec: JobSpec
    attempt: str  # what is written carries it
    slot: SlotKind | None  # None: what needs one raises NeedsSlotError
    folder: Path  # empty at first, gone afterwards
    report: Callable[[JobProgress], None]
    ended: asyncio.Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    summary: dict[str, Any] = field(default_factory=dict)
    is_published: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The attempt whose result stands."""

    attempt: str
    at: float


async def _publish_nothing(spec: JobSpec, accepted: Accepted) -> dict[str, Any]:
    """For jobs whose result is all there is."""
    return {}


async def _discard_nothing(spec: JobSpec, attempt: str) -> None:
    """For jobs that write nothing."""


def _nothing_on_disk(spec: JobSpec) -> int:
    """For jobs whose media goes through pipes."""
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobProcedure:
    """How a kind of job is done, in three parts, so that two attempts never mix.

    `make` writes only under names that carry the attempt. `publish` makes an accepted attempt
    visible, and removes what other attempts left; it may run again, on another host, and does the
    same then; what it returns is added to the summary. `discard` removes what one attempt wrote.
    `disk_bytes` says how much `make` may write into its folder; `encodes` whether it may ask for a
    slot."""

    make: Callable[[StepContext], Awaitable[Made]]
    publish: Callable[[JobSpec, Accepted], Awaitable[dict[str, Any]]] = _publish_nothing
    discard: Callable[[JobSpec, str], Awaitable[None]] = _discard_nothing
    disk_bytes: Callable[[JobSpec], int] = _nothing_on_disk
    encodes: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """Does the steps of jobs here. `on_complete` is told of each job that is published; `reporters`
    tell others of the end of a job, by their names in its spec."""

    procedures: Mapping[JobKind, JobProcedure]
    slots: Slots
    workplace: Workplace
    on_complete: Callable[[JobSpec], None] = lambda _spec: None
    reporters: Mapping[str, Callable[[JobEnd], Awaitable[None]]] = field(default_factory=dict)

    async def perform(
        self, order: Order, *, report: Callable[[JobProgress], None], ended: asyncio.Event
    ) -> Answer:
        """Raises StepError. Where it is cancelled, what it wrote is taken back."""
        spec, began_at = order.spec, time.monotonic()
        log.info("step begun", kind=spec.kind, step=order.step, attempt=order.attempt)
        try:
            answer = await self._perform(order, report, ended)
        except asyncio.CancelledError:
            await self.take_back(order)
            count_step(order, StepOutcome.CANCELLED, time.monotonic() - began_at)
            raise
        except CefError as error:
            log.log(level_of(error), "step failed", step=order.step, reason=str(error))
            await self.take_back(order)
            trouble = _trouble_of(error)
            count_trouble(order, trouble, error, time.monotonic() - began_at)
            raise StepError(trouble, str(error)) from error
        except Exception as error:
            log.exception("step crashed", step=order.step)
            await self.take_back(order)
            count_trouble(order, Trouble.FAILED, error, time.monotonic() - began_at)
            raise StepError(Trouble.FAILED, str(error) or type(error).__name__) from error
        answer = replace(answer, seconds=time.monotonic() - began_at)
        count_answer(order, answer)
        return answer

    async def _perform(
        self, order: Order, report: Callable[[JobProgress], None], ended: asyncio.Event
    ) -> Answer:
        spec, procedure = order.spec, self.procedures[order.spec.kind]
        made = Made()
        if order.step is Step.PUBLISH:
            accepted = Accepted(attempt=order.attempt, at=order.accepted_at)
            made = Made(summary=await procedure.publish(spec, accepted))
            self.on_complete(spec)
        elif order.step is Step.DISCARD:
            for attempt in order.attempts:
                await procedure.discard(spec, attempt)
        elif order.step is Step.REPORT:
            await self._tell(order)
        else:
            self.workplace.check_room(procedure.disk_bytes(spec))
            with (
                self._slot_for(order.step) as slot,
                self.workplace.attempt(order.attempt) as folder,
            ):
                report(JobProgress(slot=slot))
                context = StepContext(
                    spec=spec,
                    attempt=order.attempt,
                    slot=slot,
                    folder=folder,
                    report=lambda progress: report(_measured(progress, slot)),
                    ended=ended,
                )
                try:
                    made = await procedure.make(context)
                except NeedsSlotError:
                    return Answer(
                        step=order.step, attempt=order.attempt, summary={}, needs_slot=True
                    )
            if made.is_published:
                self.on_complete(spec)
        return Answer(
            step=order.step,
            attempt=order.attempt,
            summary=made.summary,
            is_published=made.is_published,
        )

    async def _tell(self, order: Order) -> None:
        if order.end is None:
            raise PermanentError("an order to tell of an end that names none")
        reporter = self.reporters.get(order.whom)
        if reporter is None:
            raise TransientError(
                f"this host cannot tell {order.whom!a} of the end of a job",
                hint="give every worker the settings of all sources, and WEBHOOK_URL",
            )
        await reporter(order.end)

    @contextmanager
    def _slot_for(self, step: Step) -> Iterator[SlotKind | None]:
        with self.slots.taken() if step is Step.ENCODE else nullcontext() as slot:
            yield slot

    async def take_back(self, order: Order) -> None:
        """What stays because the store is sick goes with what comes after: publish, or discard."""
        if order.step not in (Step.LOOK, Step.ENCODE):
            return
        try:
            await self.procedures[order.spec.kind].discard(order.spec, order.attempt)
        except CefError as error:
            log.log(level_of(error), "an attempt's output stays", reason=str(error))


def _trouble_of(error: CefError) -> Trouble:
    if isinstance(error, AWAY):
        return Trouble.AWAY
    return Trouble.INPUT if isinstance(error, PermanentError) else Trouble.FAILED


def _measured(progress: JobProgress, slot: SlotKind | None) -> JobProgress:
    if progress.speed and slot:
        metrics.encode_speed.labels(slot).set(progress.speed)
    if progress.fps and slot:  # ffmpeg knows it after a second only
        metrics.encode_fps.labels(slot).set(progress.fps)
    return replace(progress, slot=slot)
