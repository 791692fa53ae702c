"""Finds what nobody told us: attempts whose worker died, ready jobs without a ticket, and what the
attempts of failed jobs left behind. Every worker does it; doing it twice is harmless, as each step
names the fence or round it is about."""

import time
from collections.abc import Awaitable, Callable, Sequence

import structlog

from cefmp4 import metrics
from cefmp4.errors import CefError, TransientError, UnknownJobError
from cefmp4.jobs.ledger import RunningAttempt
from cefmp4.jobs.overview import measure_queues
from cefmp4.jobs.queue import JobQueue
from cefmp4.model.job import LANES, Job, JobKind, Lane

log = structlog.get_logger()

TICKETS_PER_STEP = 100  # of each lane; more workers than that would have to wait for the next step
READY_SECONDS = 3.0  # a ticket needs so long at most
SLOW_LOOK_S = 1.0
BLIND_S = 10.0  # from a look that failed: then every living worker has renewed its leases again
WORKER_LOST = "the worker died"


class Reconciler:
    """`discard` removes what one attempt of a job wrote."""

    def __init__(
        self,
        queue: JobQueue,
        *,
        kinds: Sequence[JobKind],
        is_dead: Callable[[str], bool],
        discard: Callable[[Job, int], Awaitable[None]],
        backoff_s: Callable[[int], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queue = queue
        self._kinds = kinds
        self._is_dead = is_dead
        self._discard = discard
        self._backoff_s = backoff_s
        self._clock = clock
        self._trusts_leases_at = 0.0

    async def step(self) -> list[str]:
        """Returns the jobs whose attempt died."""
        lost = [
            attempt.job_id
            for attempt in await self._running()
            if self._is_lost(attempt) and await self._is_taken_back(attempt)
        ]
        for kind in self._kinds:
            for lane in LANES[kind]:
                await self._deliver_again(lane)
        await measure_queues(self._queue.ledger, self._kinds)
        await self._tidy()
        return lost

    async def _running(self) -> list[RunningAttempt]:
        """While Redis is away nobody can renew a lease: its end says nothing of the worker then.
        Redis was away, too, if the look had to wait for it."""
        began, has_answered = self._clock(), False
        try:
            running = await self._queue.ledger.running()
            has_answered = self._clock() - began <= SLOW_LOOK_S
        finally:
            if not has_answered:
                self._trusts_leases_at = self._clock() + BLIND_S
        return running

    def _is_lost(self, attempt: RunningAttempt) -> bool:
        is_over = attempt.is_over and self._clock() >= self._trusts_leases_at
        return is_over or self._is_dead(attempt.owner)

    async def _is_taken_back(self, attempt: RunningAttempt) -> bool:
        """A record that cannot be read must not keep the others from going on."""
        try:
            return await self._take_back(attempt)
        except TransientError:
            raise
        except CefError as error:
            log.debug("a job stays with its worker", job_id=attempt.job_id, reason=str(error))
            return False

    async def _take_back(self, attempt: RunningAttempt) -> bool:
        try:
            job = await self._queue.ledger.get(attempt.job_id)
        except UnknownJobError:
            return False
        if job.fence != attempt.fence or not job.is_running:
            return False  # it moved on meanwhile
        # The first loss is nobody's fault: the job goes on at once. One that loses every worker
        # may be what kills them.
        delay_s = self._backoff_s(job.attempts - 1) if job.attempts > 1 else 0.0
        await self._queue.requeue(job, error=WORKER_LOST, delay_s=delay_s)
        after = await self._queue.ledger.get(job.id)
        log.warning("a worker is gone", job_id=job.id, attempt=job.attempts, state=after.state)
        if after.has_failed:
            metrics.job_results.labels(job.kind, after.reason or "error").inc()
        return True

    async def _tidy(self) -> None:
        """An accepted result stays: an operator may still want it published. One that is queued
        again is tidied by the attempt that publishes."""
        for job in await self._queue.ledger.littered():
            if job.kind in self._kinds:
                try:
                    await self._tidy_one(job)
                except CefError as error:  # the next step tries again; others need not wait for it
                    log.debug("an attempt's output stays", job_id=job.id, reason=str(error))

    async def _tidy_one(self, job: Job) -> None:
        if job.has_failed:
            for fence in job.fences:
                if fence != job.accepted:
                    await self._discard(job, fence)
        await self._queue.ledger.tidied(job.id)

    async def _deliver_again(self, lane: Lane) -> None:
        """The engine ignores a ticket that it has."""
        tickets = await self._queue.ledger.ready(
            lane, count=TICKETS_PER_STEP, for_seconds=READY_SECONDS
        )
        if tickets:
            await self._queue.engine.enqueue(tickets)
