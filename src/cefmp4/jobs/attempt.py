"""One attempt of one job: its procedure, its heartbeat, and how it ends in the ledger."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import structlog

from cefmp4 import metrics
from cefmp4.errors import (
    AccessDeniedError,
    BucketMissingError,
    CefError,
    LeaseLostError,
    PermanentError,
    ProgramMissingError,
    ServerUnreachableError,
    ThrottledError,
    TransientError,
)
from cefmp4.jobs.ledger import Standing
from cefmp4.jobs.queue import JobQueue
from cefmp4.jobs.workplace import NoRoomError, Workplace
from cefmp4.model.job import FailReason, Job, JobProgress, Lane, SlotKind
from cefmp4.reachability import level_of
from cefmp4.retry import Backoff, patiently

log = structlog.get_logger()

HEARTBEAT_S = 1.0  # also how soon a cancel reaches the job, and how fresh its progress is
RETRY_BACKOFF = Backoff(first_s=4.0, cap_s=300.0)
NO_ROOM_S = 30.0  # until a job that this host cannot do now is begun again, here or elsewhere
SERVER_AWAY = (ServerUnreachableError, ThrottledError, AccessDeniedError, BucketMissingError)
MOST_WAITS = 100  # attempts that a sick server may end uncounted, about 8 h; each is remembered


class NeedsSlotError(CefError):
    """The job turns out to need a slot, and this attempt has none."""


class Ending(StrEnum):
    """Why an attempt is ended from outside."""

    CANCELLED = "cancelled"
    FENCED = "fenced"
    RELEASED = "released"
    MOVED = "moved"  # to the lane where it gets the slot it needs
    NO_ROOM = "no_room"  # on the disk
    NO_PROGRAM = "no_program"
    SERVER_AWAY = "server_away"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobContext:
    """What a procedure is given. Its task is cancelled when the attempt must end; `ended` is for
    threads, which no cancel reaches."""

    job: Job
    slot: SlotKind | None  # None: what needs one raises NeedsSlotError, and is begun again with it
    folder: Path  # empty at first, gone afterwards
    report: Callable[[JobProgress], None]
    ended: asyncio.Event

    @property
    def fence(self) -> int:
        """Grows with every attempt: what this attempt writes carries it."""
        return self.job.fence


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOutcome:
    """A summary for the ledger, fit for JSON; rows and files lie beside the outputs."""

    result: dict[str, Any] = field(default_factory=dict)


async def _nothing_to_publish(job: Job) -> None:
    """For jobs whose result is all there is."""


async def _nothing_to_discard(job: Job, fence: int) -> None:
    """For jobs that leave nothing behind."""


def _nothing_on_disk(job: Job) -> int:
    """For jobs whose media goes through pipes."""
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobProcedure:
    """How a kind of job is done, in three steps, so that two attempts never mix.

    `run` writes only under names that carry the fence. `publish` makes the accepted result visible,
    from `job.accepted` and `job.result` alone, and removes what other attempts left; it may run
    again, on another host, and does the same then. `discard` removes what one attempt wrote.
    `disk_bytes` says how much `run` may write into its folder."""

    run: Callable[[JobContext], Awaitable[JobOutcome]]
    publish: Callable[[Job], Awaitable[None]] = _nothing_to_publish
    discard: Callable[[Job, int], Awaitable[None]] = _nothing_to_discard
    disk_bytes: Callable[[Job], int] = _nothing_on_disk


class Attempt:
    def __init__(
        self,
        job: Job,
        slot: SlotKind | None,
        *,
        queue: JobQueue,
        procedure: JobProcedure,
        workplace: Workplace,
        heartbeat_s: float = HEARTBEAT_S,
        backoff: Backoff = RETRY_BACKOFF,
    ) -> None:
        self.job = job
        self.slot = slot
        self._queue = queue
        self._procedure = procedure
        self._workplace = workplace
        self._heartbeat_s = heartbeat_s
        self._backoff = backoff
        self._ended = asyncio.Event()
        self._ending: Ending | None = None
        self._progress: JobProgress | None = None
        self._performing: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Attempt {self.job.id} fence={self.job.fence} ending={self._ending}>"

    def end(self, ending: Ending) -> None:
        """The first reason counts. To be repeated while it does not end: the Redis client is known
        to swallow a cancel now and then."""
        if self._ending is None:
            self._ending = ending
            self._ended.set()
        if self._performing is not None:
            self._performing.cancel()

    async def run(self) -> str:
        """Returns how it ended, in one word."""
        started = time.monotonic()
        self._performing = asyncio.create_task(self._perform(), name=f"perform {self.job.id}")
        beating = asyncio.create_task(self._beat(self._performing), name=f"heartbeat {self.job.id}")
        if self._ending is not None:
            self._performing.cancel()
        try:
            await asyncio.wait({self._performing})
        finally:
            await _stopped(self._performing)
            await _stopped(beating)
        outcome = await self._conclude(_error_of(self._performing))
        metrics.job_results.labels(self.job.kind, outcome).inc()
        if outcome == "complete":
            metrics.job_duration.labels(self.job.kind).observe(time.monotonic() - started)
        return outcome

    async def _perform(self) -> None:
        ledger, job = self._queue.ledger, self.job
        if not job.is_accepted:
            self._workplace.check_room(self._procedure.disk_bytes(job))
            with self._workplace.attempt(f"{job.kind}-{job.fence}") as folder:
                outcome = await self._procedure.run(
                    JobContext(
                        job=job,
                        slot=self.slot,
                        folder=folder,
                        report=self._report,
                        ended=self._ended,
                    )
                )
            is_accepted = await patiently(
                lambda: ledger.accept(job.id, job.fence, outcome.result), what="accept result"
            )
            if not is_accepted:
                raise LeaseLostError(f"attempt {job.fence} of job {job.id} is fenced off")
        await self._procedure.publish(await patiently(lambda: ledger.get(job.id), what="read job"))
        if not await patiently(lambda: ledger.commit(job.id, job.fence), what="commit job"):
            raise LeaseLostError(f"attempt {job.fence} of job {job.id} is fenced off")

    def _report(self, progress: JobProgress) -> None:
        self._progress = progress
        if progress.speed and self.slot:
            metrics.encode_speed.labels(self.slot).set(progress.speed)
        if progress.fps and self.slot:  # ffmpeg knows it after a second only
            metrics.encode_fps.labels(self.slot).set(progress.fps)

    async def _beat(self, performing: asyncio.Task[None]) -> None:
        while not performing.done():
            await asyncio.sleep(self._heartbeat_s)
            progress, self._progress = self._progress, None
            try:
                standing = await self._queue.ledger.heartbeat(self.job.id, self.job.fence, progress)
            except CefError as error:
                self._progress = self._progress or progress
                log.debug("heartbeat failed", job_id=self.job.id, reason=str(error))
                continue
            if standing is Standing.CANCEL:
                self.end(Ending.CANCELLED)
            elif standing is Standing.LOST:
                self.end(Ending.FENCED)

    async def _conclude(self, error: BaseException | None) -> str:
        if error is None:
            return "complete"
        if isinstance(error, LeaseLostError):
            self._ending = Ending.FENCED
        if self._ending is Ending.FENCED:
            await self._discard_own()
            return Ending.FENCED
        if self._ending is Ending.RELEASED:
            await patiently(
                lambda: self._queue.requeue(
                    self.job, error="the worker was stopped", gives_back=True
                ),
                what="release job",
            )
            return Ending.RELEASED
        if self._ending is Ending.CANCELLED:
            return await self._fail(FailReason.CANCELLED, "cancelled")
        return await self._conclude_failed(error)

    async def _conclude_failed(self, error: BaseException) -> str:
        if isinstance(error, NeedsSlotError) and self.job.next_lane is not None:
            return await self._move(self.job.next_lane)
        if isinstance(error, NoRoomError):
            return await self._wait_for_host(error, Ending.NO_ROOM)
        if isinstance(error, ProgramMissingError):
            return await self._wait_for_host(error, Ending.NO_PROGRAM)
        if isinstance(error, SERVER_AWAY) and len(self.job.fences) < MOST_WAITS:
            return await self._wait_for_server(error)
        if isinstance(error, PermanentError):
            log.error("job failed", job_id=self.job.id, reason=str(error))
            return await self._fail(FailReason.ERROR, str(error))
        return await self._retry(error)

    async def _move(self, lane: Lane) -> str:
        await patiently(
            lambda: self._queue.requeue(self.job, error="", gives_back=True, lane=lane),
            what="move job",
        )
        return Ending.MOVED

    async def _wait_for_host(self, error: CefError, ending: Ending) -> str:
        """No attempt is counted: the job is not the reason, and another host may do it."""
        log.warning("this host cannot do a job now", job_id=self.job.id, reason=str(error))
        await patiently(
            lambda: self._queue.requeue(
                self.job, error=str(error), delay_s=NO_ROOM_S, wrote_nothing=True
            ),
            what="requeue job",
        )
        return ending

    async def _wait_for_server(self, error: CefError) -> str:
        """No attempt is counted: an outage would make dead letters of the whole queue."""
        log.log(level_of(error), "a server is away", job_id=self.job.id, reason=str(error))
        delay_s = self._backoff.wait_s(len(self.job.fences), error)
        await patiently(
            lambda: self._queue.requeue(
                self.job, error=str(error), delay_s=delay_s, gives_back=True
            ),
            what="requeue job",
        )
        await self._discard_own()
        return Ending.SERVER_AWAY

    async def _fail(self, reason: FailReason, error: str) -> str:
        job = self.job
        if not await patiently(
            lambda: self._queue.ledger.fail(job.id, job.fence, reason, error), what="fail job"
        ):
            await self._discard_own()
            return Ending.FENCED
        return reason

    async def _retry(self, error: BaseException) -> str:
        if isinstance(error, CefError):
            log.warning("attempt failed", job_id=self.job.id, reason=str(error))
        else:
            log.error("attempt crashed", job_id=self.job.id, exc_info=error)
        delay_s = self._backoff.wait_s(self.job.attempts, error)
        text = str(error) or type(error).__name__
        is_retried = await patiently(
            lambda: self._queue.requeue(self.job, error=text, delay_s=delay_s), what="requeue job"
        )
        await self._discard_own()  # last: no heartbeat holds the lease any more
        if is_retried:
            return "retried"
        after = await patiently(lambda: self._queue.ledger.get(self.job.id), what="read job")
        if not after.has_failed or after.fence != self.job.fence:
            return Ending.FENCED
        return after.reason or FailReason.ERROR

    async def _discard_own(self) -> None:
        """Unless the ledger says that this is what counts: it may know more than we were told."""
        with suppress(TransientError):
            after = await self._queue.ledger.find(self.job.id)
            if after is None or after.accepted != self.job.fence:
                await _discard(self._procedure, self.job, self.job.fence)


async def _discard(procedure: JobProcedure, job: Job, fence: int) -> None:
    """What stays because the store is sick goes with the next `publish`, or by the reconciler."""
    try:
        await procedure.discard(job, fence)
    except CefError as error:
        log.log(level_of(error), "an attempt's output stays", fence=fence, reason=str(error))


async def _stopped(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})


def _error_of(task: asyncio.Task[None]) -> BaseException | None:
    return asyncio.CancelledError() if task.cancelled() else task.exception()
