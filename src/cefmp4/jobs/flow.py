"""How a job goes, from its order to its one result. It decides, and does nothing itself: an engine
does the steps, waits and remembers. Decides the same again when it is told the same again."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Protocol

from cefmp4.errors import CefError
from cefmp4.model.job import MAX_ERROR_CHARS, FailReason, JobEnd, JobKind, JobSpec, JobState, Step

FIRST_PAUSE_S = 4.0
LONGEST_PAUSE_S = 300.0
# Whoever is told of something may be away for days, with many jobs that wait for him, and each try
# makes the history longer that is gone through again for the next one.
LONGEST_TELLING_PAUSE_S = 3600.0
LAST_WORD_S = 10.0  # for a worker that seems dead to say that it was cut off, before a job fails
MOST_WAITS = 100  # steps that a sick server or host may end uncounted, about 8 h
MOST_REPORTS = 180  # tries to tell of the end, about a week


class Trouble(StrEnum):
    """Why a step came to no answer; it decides what comes next."""

    INPUT = "input"  # the input is the reason: never again
    FAILED = "failed"  # counted
    LOST = "lost"  # its worker died: counted, too
    AWAY = "away"  # a server is away, or the host cannot: the job is not the reason
    HANDED_BACK = "handed_back"  # its worker stops


class StepError(CefError):
    """A step came to no answer."""

    def __init__(self, trouble: Trouble, message: str) -> None:
        super().__init__(message[:MAX_ERROR_CHARS])
        self.trouble = trouble


class JobFailedError(CefError):
    """The job is over, and has no result."""

    def __init__(self, reason: FailReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a step is asked to do. `attempts` are all that may have left something behind."""

    step: Step
    spec: JobSpec
    attempt: str
    attempts: tuple[str, ...] = ()
    is_last: bool = False  # if it fails, the job does
    failed_as: FailReason | None = None  # the job has, so there is only clearing up
    seconds: float = 0.0  # that the accepted attempt took
    accepted_at: float = 0.0  # of two results of a job the later one stands
    end: JobEnd | None = None  # to be told
    whom: str = ""  # it is told


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a step did. `summary` is fit for JSON; rows and media lie beside the outputs."""

    step: Step
    attempt: str
    summary: dict[str, Any]  # never left out: what is signed as an order has none
    needs_slot: bool = False  # nothing is made: only an encode can
    is_published: bool = False  # all of it was made before, by an earlier job
    seconds: float = 0.0  # that it took


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How far a job is, for people and for who lists jobs."""

    step: Step = Step.LOOK
    counted: int = 0
    attempts: tuple[str, ...] = ()
    accepted: str = ""  # the attempt whose answer stands
    reason: FailReason | None = None
    error: str = ""
    waits_until: float = 0.0
    ended_at: float = 0.0  # what is left is to tell of it
    result: dict[str, Any] | None = None


def attempts_of(standing: Standing, state: JobState, reason: FailReason | None) -> int:
    """Begun and not given back. One that is not over, or whose end is the job's, counts as well."""
    counts_too = state in (JobState.IN_PROGRESS, JobState.COMPLETE) or reason is FailReason.ERROR
    return standing.counted + counts_too


class Engine(Protocol):
    """What carries a flow. A cancel of the job is a CancelledError in whatever it awaits."""

    async def perform(self, order: Order) -> Answer:
        """Raises StepError."""
        ...

    async def pause(self, seconds: float) -> None: ...

    def now(self) -> float: ...

    def new_name(self) -> str:
        """Of an attempt; never the same twice, of no job."""
        ...

    def show(self, standing: Standing) -> None: ...


class JobFlow:
    def __init__(self, spec: JobSpec, engine: Engine) -> None:
        self._spec = spec
        self._engine = engine
        self._standing = Standing()
        self._waits = 0  # in a row, for what is no fault of the job
        self._seconds = 0.0  # that the accepted attempt took
        self._accepted_at = 0.0
        self._lost: set[str] = set()  # attempts that were counted as their worker seemed dead
        self._cut_off: set[str] = set()  # attempts that will seem so

    def __repr__(self) -> str:
        return f"<JobFlow {self._spec.id} {self._standing}>"

    async def run(self) -> dict[str, Any]:
        """The summary of the result. Raises JobFailedError."""
        try:
            made = await self._sure(Step.LOOK)
            if made.needs_slot:
                self._show(attempts=tuple(n for n in self._standing.attempts if n != made.attempt))
                made = await self._sure(Step.ENCODE)
            self._show(accepted=made.attempt)
            self._seconds, self._accepted_at = made.seconds, self._engine.now()
            summary = made.summary
            if not made.is_published:
                summary = summary | (await self._sure(Step.PUBLISH)).summary
        except JobFailedError as error:
            self._show(reason=error.reason, error=str(error))
            await self._clear_up()
            await self._report_end()
            raise
        except asyncio.CancelledError:
            self._show(reason=FailReason.CANCELLED, error="cancelled")
            await self._clear_up()
            await self._report_end()
            raise
        self._show(result=summary, error="")
        await self._report_end()
        return summary

    def _show(self, **changes: Any) -> None:
        self._standing = replace(self._standing, **changes)
        self._engine.show(self._standing)

    def lives(self, attempt: str) -> None:
        """A worker that seemed dead says that it was cut off, so that was no fault of the job. It
        may be heard before the loss is."""
        if attempt in self._lost:
            self._lost.remove(attempt)
            self._show(counted=self._standing.counted - 1)
        else:
            self._cut_off.add(attempt)

    async def _sure(self, step: Step) -> Answer:
        """Does the step as often as it takes."""
        while True:
            attempt = self._standing.accepted or self._engine.new_name()
            attempts = self._standing.attempts
            if attempt not in attempts:
                attempts = (*attempts, attempt)
            self._show(step=step, attempts=attempts, waits_until=0.0)
            try:
                answer = await self._perform(step, attempt, attempts)
            except StepError as error:
                await self._pause_after(error, attempt)
            else:
                self._waits = 0
                return answer

    async def _perform(
        self, step: Step, attempt: str, attempts: tuple[str, ...], whom: str = ""
    ) -> Answer:
        answer = await self._engine.perform(self._order(step, attempt, attempts, whom))
        if (answer.step, answer.attempt) != (step, attempt):
            raise StepError(Trouble.AWAY, "the answer to another step was given")
        return answer

    def _order(self, step: Step, attempt: str, attempts: tuple[str, ...], whom: str = "") -> Order:
        return Order(
            step=step,
            spec=self._spec,
            attempt=attempt,
            attempts=attempts,
            is_last=self._is_last,
            failed_as=self._standing.reason,
            seconds=self._seconds,
            accepted_at=self._accepted_at,
            end=self._end if step is Step.REPORT else None,
            whom=whom,
        )

    @property
    def _end(self) -> JobEnd:
        standing = self._standing
        state = JobState.COMPLETE if standing.reason is None else JobState.FAILED
        return JobEnd(
            spec=self._spec,
            state=state,
            at=standing.ended_at,
            reason=standing.reason,
            error=standing.error if standing.reason else "",
            attempts=attempts_of(standing, state, standing.reason),
            result=standing.result,
        )

    @property
    def _is_last(self) -> bool:
        return self._standing.counted + 1 >= self._spec.max_attempts

    async def _pause_after(self, error: StepError, attempt: str) -> None:
        """Raises JobFailedError where there is no other try."""
        if error.trouble is Trouble.LOST and self._is_last and attempt not in self._cut_off:
            await self._engine.pause(LAST_WORD_S)
        pause_s = self._pause_s(error, attempt)
        until = self._engine.now() + pause_s if pause_s else 0.0
        self._show(error=str(error), waits_until=until)
        if pause_s:
            await self._engine.pause(pause_s)

    def _pause_s(self, error: StepError, attempt: str) -> float:
        if error.trouble is Trouble.INPUT:
            raise JobFailedError(FailReason.ERROR, str(error))
        if error.trouble is Trouble.HANDED_BACK:
            return 0.0
        if error.trouble is Trouble.AWAY and self._waits < MOST_WAITS:
            self._waits += 1
            return _doubled(self._waits, self._longest_pause_s)
        if error.trouble is Trouble.LOST:
            if attempt in self._cut_off:
                self._cut_off.remove(attempt)
                return 0.0
            self._lost.add(attempt)
        counted = self._standing.counted + 1
        self._show(counted=counted)
        if counted >= self._spec.max_attempts:
            raise JobFailedError(FailReason.DEAD_LETTER, str(error))
        # The first loss is nobody's fault. A job that loses every worker may be what kills them.
        is_first_loss = error.trouble is Trouble.LOST and counted == 1
        return 0.0 if is_first_loss else _doubled(counted, self._longest_pause_s)

    @property
    def _longest_pause_s(self) -> float:
        is_telling = self._spec.kind is JobKind.CALLBACK
        return LONGEST_TELLING_PAUSE_S if is_telling else LONGEST_PAUSE_S

    async def _clear_up(self) -> None:
        """An accepted result stays: an operator may still want it published. Where nothing else is
        left, a worker still counts the end of the job."""
        left = tuple(name for name in self._standing.attempts if name != self._standing.accepted)
        while True:
            try:
                await self._perform(Step.DISCARD, self._engine.new_name(), left)
            except StepError as error:
                if error.trouble is Trouble.INPUT or self._waits >= MOST_WAITS:
                    return  # said by the step
                self._waits += 1
                await self._engine.pause(_doubled(self._waits))
            else:
                return

    async def _report_end(self) -> None:
        """A cancel ends only this: the job itself is over. Nobody waits until another could be
        told, or hears the same again because of him."""
        if not self._spec.tells:
            return
        self._show(step=Step.REPORT, ended_at=self._engine.now())
        left = list(self._spec.tells)
        with suppress(asyncio.CancelledError):
            for times in range(1, MOST_REPORTS + 1):
                troubles = {whom: await self._trouble_of_telling(whom) for whom in left}
                left = [whom for whom, trouble in troubles.items() if trouble]
                if not left:
                    break
                is_handed_back = Trouble.HANDED_BACK in troubles.values()
                pause_s = 0.0 if is_handed_back else _doubled(times, LONGEST_TELLING_PAUSE_S)
                self._show(waits_until=self._engine.now() + pause_s)
                if pause_s:
                    await self._engine.pause(pause_s)
        self._show(waits_until=0.0)

    async def _trouble_of_telling(self, whom: str) -> Trouble | None:
        try:
            await self._perform(Step.REPORT, self._engine.new_name(), (), whom)
        except StepError as error:
            return error.trouble
        return None


def _doubled(times: int, longest_s: float = LONGEST_PAUSE_S) -> float:
    return min(longest_s, FIRST_PAUSE_S * 2.0 ** min(times - 1, 30))
