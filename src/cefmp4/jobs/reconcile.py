"""Finds what nobody told us: attempts whose worker died, ready jobs without a ticket, and what the
attempts of failed jobs left behind. Every worker does it; doing it twice is harmless, as each step
names the fence or round it is about."""

from collections.abc import Awaitable, Callable, Sequence

import structlog

from cefmp4 import metrics
from cefmp4.errors import UnknownJobError
from cefmp4.jobs.ledger import RunningAttempt
from cefmp4.jobs.overview import measure_queues
from cefmp4.jobs.queue import JobQueue
from cefmp4.model.job import LANES, Job, JobKind, Lane

log = structlog.get_logger()

TICKETS_PER_STEP = 100  # of each lane; more workers than that would have to wait for the next step
READY_SECONDS = 3.0  # a ticket needs so long at most
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
    ) -> None:
        self._queue = queue
        self._kinds = kinds
        self._is_dead = is_dead
        self._discard = discard
        self._backoff_s = backoff_s

    async def step(self) -> list[str]:
        """Returns the jobs whose attempt died."""
        lost = [
            attempt.job_id
            for attempt in await self._queue.ledger.running()
            if (attempt.is_over or self._is_dead(attempt.owner)) and await self._take_back(attempt)
        ]
        for kind in self._kinds:
            for lane in LANES[kind]:
                await self._deliver_again(lane)
        await measure_queues(self._queue.ledger, self._kinds)
        await self._tidy()
        return lost

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
        log.warning("a worker is gone", job=job.id, attempt=job.attempts, state=after.state)
        if after.has_failed:
            metrics.job_results.labels(job.kind, after.reason or "error").inc()
        return True

    async def _tidy(self) -> None:
        """An accepted result stays: an operator may still want it published. One that is queued
        again is tidied by the attempt that publishes."""
        for job in await self._queue.ledger.littered():
            if job.kind not in self._kinds:
                continue
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
