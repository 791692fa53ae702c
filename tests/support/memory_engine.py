"""An engine of jobs in memory: carries the product's own flows, and has the product's own host do
their steps. What it forgets with its process, the real one keeps."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import uuid4

from cefmp4.errors import RefusedError, UnknownJobError
from cefmp4.jobs.flow import Answer, JobFailedError, JobFlow, Order, Standing, attempts_of
from cefmp4.jobs.steps import Host
from cefmp4.model.job import Job, JobKind, JobProgress, JobSpec, JobState, QueueStats, Step

LOOKS = 2


class _Room:
    """Steps of one queue: so many at the same moment. The others wait, the one of higher priority
    first, and folders in turns."""

    def __init__(self, total: int) -> None:
        self._free = total
        self._turns: Counter[str] = Counter()
        self._waiting: list[tuple[JobSpec, asyncio.Future[None]]] = []

    @asynccontextmanager
    async def taken(self, spec: JobSpec) -> AsyncIterator[None]:
        mine = (spec, asyncio.get_running_loop().create_future())
        self._waiting.append(mine)
        self._admit()
        try:
            await mine[1]
            yield
        finally:
            if mine in self._waiting:
                self._waiting.remove(mine)
            else:
                self._free += 1
            self._admit()

    def _admit(self) -> None:
        while self._free and self._waiting:
            first = min(self._waiting, key=lambda one: self._place_of(one[0]))
            self._waiting.remove(first)
            self._free -= 1
            self._turns[first[0].folder] += 1
            first[1].set_result(None)

    def _place_of(self, spec: JobSpec) -> tuple[int, int]:
        return -spec.priority, self._turns[spec.folder]


@dataclass
class _Carried:
    spec: JobSpec
    host: Host
    rooms: dict[bool, _Room]
    submitted_at: float = field(default_factory=time.time)
    ended_at: float = 0.0
    standing: Standing = field(default_factory=Standing)
    progress: JobProgress | None = None
    is_running: bool = False
    task: asyncio.Task[None] | None = None

    async def perform(self, order: Order) -> Answer:
        async with self.rooms[order.step is Step.ENCODE].taken(order.spec):
            self.is_running, ended = True, asyncio.Event()
            try:
                return await self.host.perform(order, report=self._report, ended=ended)
            finally:
                ended.set()
                self.is_running, self.progress = False, None

    def _report(self, progress: JobProgress) -> None:
        self.progress = progress

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def now(self) -> float:
        return time.time()

    def new_name(self) -> str:
        return f"a{uuid4().hex[:16]}"

    def show(self, standing: Standing) -> None:
        self.standing = standing

    async def go(self) -> None:
        try:
            await JobFlow(self.spec, self).run()
        except JobFailedError:
            pass  # its standing says so
        finally:
            self.ended_at = time.time()

    @property
    def job(self) -> Job:
        standing = self.standing
        state = JobState.IN_PROGRESS if self.is_running else JobState.QUEUED
        if standing.reason:
            state = JobState.FAILED
        elif standing.result is not None:
            state = JobState.COMPLETE
        is_telling = standing.step is Step.REPORT and not self.ended_at
        return Job(
            spec=self.spec,
            state=state,
            reason=standing.reason,
            error=standing.error,
            attempts=attempts_of(standing, state, standing.reason),
            attempt_names=standing.attempts,
            step=standing.step,
            accepted=standing.accepted,
            result=standing.result,
            progress=self.progress,
            submitted_at=self.submitted_at,
            due_at=standing.waits_until,
            is_telling=is_telling,
            ended_at=standing.ended_at or self.ended_at,
            updated_at=self.ended_at or self.submitted_at,
        )


class MemoryEngine:
    def __init__(self, host: Host) -> None:
        self.has_workers = True
        self._host = host
        self._jobs: dict[str, _Carried] = {}
        self._rooms = {False: _Room(LOOKS), True: _Room(host.slots.total)}

    async def submit(self, spec: JobSpec) -> bool:
        if spec.id in self._jobs:
            return False
        self._begin(spec)
        return True

    async def find(self, job_id: str) -> Job | None:
        carried = self._jobs.get(job_id)
        return carried.job if carried else None

    async def get(self, job_id: str) -> Job:
        job = await self.find(job_id)
        if job is None:
            raise UnknownJobError(f"there is no job {job_id!a}")
        return job

    async def latest(
        self, states: Iterable[JobState], limit: int, kind: JobKind | None = None
    ) -> list[Job]:
        asked = [one for one in self._jobs.values() if kind in (None, one.spec.kind)]
        jobs = sorted(asked, key=lambda one: one.submitted_at, reverse=True)
        found = [one.job for state in states for one in jobs if one.job.state is state]
        return found[:limit]

    async def complete_of(self, job_ids: Sequence[str]) -> set[str]:
        jobs = [await self.find(job_id) for job_id in job_ids]
        return {job.id for job in jobs if job and job.is_complete}

    async def counts(self, kind: JobKind | None = None) -> dict[JobState, int]:
        asked = [one for one in self._jobs.values() if kind in (None, one.spec.kind)]
        found = Counter(one.job.state for one in asked)
        return {state: found[state] for state in JobState}

    async def backlog(self, kind: JobKind) -> int:
        return (await self.queue(kind)).queued

    async def queue(self, kind: JobKind) -> QueueStats:
        waiting = [one for one in self._jobs.values() if one.job.is_queued]
        return QueueStats(
            queued=len([one for one in waiting if one.spec.kind is kind]),
            workers=int(self.has_workers and kind in self._host.procedures),
            oldest_seconds=max((time.time() - one.submitted_at for one in waiting), default=0.0),
        )

    async def cancel(self, job_id: str) -> JobState:
        job = await self.get(job_id)
        if job.is_final and not job.is_telling:
            raise RefusedError(f"job {job_id} is {job.state} already")
        task = self._jobs[job_id].task
        assert task is not None
        task.cancel()
        return job.state

    async def retry(self, job_id: str) -> None:
        job = await self.get(job_id)
        if not job.has_failed:
            raise RefusedError(f"job {job_id} is {job.state}: only failed jobs can be tried again")
        await self.begin_again(job.spec)

    async def begin_again(self, spec: JobSpec) -> None:
        known = self._jobs.get(spec.id)
        if known and not known.ended_at:
            raise RefusedError(f"job {spec.id} is still at work, or clearing up")
        self._begin(spec)

    async def stop(self) -> None:
        tasks = [one.task for one in self._jobs.values() if one.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, spec: JobSpec) -> None:
        carried = self._jobs[spec.id] = _Carried(spec, self._host, self._rooms)
        carried.task = asyncio.create_task(carried.go(), name=spec.id)
