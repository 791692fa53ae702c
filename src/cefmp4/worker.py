"""The worker: takes tickets while it has slots, runs what the ledger gives for them, and lets go of
everything when it is told to stop."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

import structlog

from cefmp4.errors import CefError
from cefmp4.jobs.attempt import (
    HEARTBEAT_S,
    RETRY_BACKOFF,
    Attempt,
    Ending,
    JobProcedure,
)
from cefmp4.jobs.queue import JobQueue
from cefmp4.jobs.reconcile import Reconciler
from cefmp4.jobs.slots import Slots
from cefmp4.jobs.workplace import Workplace
from cefmp4.model.job import LANES, FailReason, Job, JobKind, Lane, SlotKind
from cefmp4.reachability import level_of
from cefmp4.retry import Backoff

log = structlog.get_logger()

RECONCILE_S = 2.0
RELEASE_AGAIN_S = 5.0
RELEASE_S = 10.0  # then what cannot be released, as Redis is away, is left to the end of its lease
INTAKE_STOP_S = 5.0
FAREWELL_S = 1.0


class JobRunner:
    """Runs until `stop`. What it cannot finish within `drain_s` then is released: the job is queued
    again as if the attempt had never begun, and its place is another worker's."""

    def __init__(
        self,
        *,
        queue: JobQueue,
        procedures: Mapping[JobKind, JobProcedure],
        slots: Slots,
        workplace: Workplace,
        owner: str,
        is_dead: Callable[[str], bool],
        drain_s: float = 0.0,
        heartbeat_s: float = HEARTBEAT_S,
        reconcile_s: float = RECONCILE_S,
        backoff: Backoff = RETRY_BACKOFF,
        on_complete: Callable[[Job], None] = lambda _job: None,
    ) -> None:
        self._queue = queue
        self._procedures = procedures
        self._slots = slots
        self._workplace = workplace
        self._owner = owner
        self._drain_s = drain_s
        self._heartbeat_s = heartbeat_s
        self._reconcile_s = reconcile_s
        self._backoff = backoff
        self._on_complete = on_complete
        self._reconciler = Reconciler(
            queue,
            kinds=list(procedures),
            is_dead=is_dead,
            discard=lambda job, fence: procedures[job.kind].discard(job, fence),
            backoff_s=backoff.wait_s,
        )
        self._running: dict[asyncio.Task[None], Attempt] = {}
        self._is_stopping = False
        self.is_taking_jobs = False
        self.last_step_at = time.monotonic()

    def __repr__(self) -> str:
        return f"<JobRunner {self._slots!r} running={list(self._running.values())}>"

    async def run(self, stop: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as loops:
            self._work_group = loops
            self._tell_room()
            intake_stop = asyncio.Event()
            intake = loops.create_task(
                self._queue.engine.run(self._lanes, self._take, name=self._owner, stop=intake_stop),
                name="tickets",
            )
            reconciling = loops.create_task(self._reconcile(), name="reconcile jobs")
            log.info("ready for jobs", kinds=",".join(self._procedures), slots=str(self._slots))
            self.is_taking_jobs = True
            await stop.wait()
            await self._drain()
            with suppress(CefError, TimeoutError):  # then it is forgotten a little later
                async with asyncio.timeout(FAREWELL_S):
                    await self._queue.ledger.leave(self._owner, self._procedures)
            intake_stop.set()
            await asyncio.wait({intake}, timeout=INTAKE_STOP_S)
            intake.cancel()
            reconciling.cancel()

    @property
    def _lanes(self) -> list[Lane]:
        return [lane for kind in self._procedures for lane in LANES[kind]]

    async def _take(self, lane: Lane, offered: str) -> None:
        """A ticket is spent once its job is begun; from then on the ledger's lease tells whether we
        live. Held longer, a cut connection would make docket wait for the job before it takes the
        next ticket. A ticket for which there is no slot after all is spent, too; the reconciler
        sends another."""
        if self._is_stopping or self._slots.room(lane) <= 0:
            return
        slot = self._slots.take(lane)
        self._tell_room()
        job = None
        try:
            job = await self._queue.ledger.begin(
                lane, owner=self._owner, slot=slot or "", offered=offered
            )
        except CefError as error:
            log.log(level_of(error), "no job could be begun", lane=lane, reason=str(error))
        finally:
            if job is None:
                self._slots.give(slot)
                self._tell_room()
            else:
                self._start(job, slot)

    def _start(self, job: Job, slot: SlotKind | None) -> None:
        attempt = Attempt(
            job,
            slot,
            queue=self._queue,
            procedure=self._procedures[job.kind],
            workplace=self._workplace,
            heartbeat_s=self._heartbeat_s,
            backoff=self._backoff,
        )
        task = self._work_group.create_task(self._work(attempt), name=f"job {job.id}")
        self._running[task] = attempt
        task.add_done_callback(self._running.pop)
        if self._is_stopping:
            attempt.end(Ending.RELEASED)

    async def _work(self, attempt: Attempt) -> None:
        """A job that goes wrong is that job's matter; the worker goes on."""
        job = attempt.job
        with structlog.contextvars.bound_contextvars(job_id=job.id):
            log.info("job begun", kind=job.kind, attempt=job.attempts, slot=attempt.slot)
            try:
                outcome = await attempt.run()
                log.log(_level_of(outcome), "job ended", kind=job.kind, outcome=outcome)
                if outcome == "complete":
                    self._on_complete(job)
            except CefError as error:
                log.warning("how the attempt ended is not recorded", reason=str(error))
            finally:
                self._slots.give(attempt.slot)
                self._tell_room()

    def _tell_room(self) -> None:
        for lane in self._lanes:
            room = 0 if self._is_stopping else self._slots.room(lane)
            self._queue.engine.set_room(lane, room)

    async def _reconcile(self) -> None:
        while not self._is_stopping:
            try:
                await self._reconciler.step()
                await asyncio.to_thread(self._workplace.sweep_others)
            except CefError as error:
                log.debug("reconcile failed", reason=str(error))
            with suppress(CefError):  # it is away; the next turn tells it
                await self._queue.ledger.announce(self._owner, self._procedures)
            self.last_step_at = time.monotonic()
            await asyncio.sleep(self._reconcile_s)

    async def _drain(self) -> None:
        self._is_stopping = True
        self.is_taking_jobs = False
        self._tell_room()
        if self._running and self._drain_s > 0:
            log.info("waiting for jobs", count=len(self._running), seconds=self._drain_s)
            await asyncio.wait(self._running, timeout=self._drain_s)
        until = time.monotonic() + RELEASE_S
        while self._running:
            for task, attempt in list(self._running.items()):
                attempt.end(Ending.RELEASED)
                if time.monotonic() >= until:
                    task.cancel()
            await asyncio.wait(self._running, timeout=RELEASE_AGAIN_S)


def _level_of(outcome: str) -> int:
    if outcome in (FailReason.ERROR, FailReason.DEAD_LETTER):
        return logging.ERROR
    return logging.WARNING if outcome in ("retried", Ending.FENCED) else logging.INFO
