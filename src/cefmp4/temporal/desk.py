"""Jobs as people and other rooms see them: submitted, looked at, cancelled, tried again."""

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from temporalio.api.common.v1 import WorkflowExecution as Run
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import (
    DeleteWorkflowExecutionRequest,
    DescribeTaskQueueRequest,
    DescribeTaskQueueResponse,
)
from temporalio.client import Client, WorkflowExecution
from temporalio.common import Priority, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError

from cefmp4.errors import RefusedError, UnknownJobError
from cefmp4.model.job import (
    FINAL_STATES,
    OFFERED_KINDS,
    Job,
    JobKind,
    JobSpec,
    JobState,
    QueueStats,
    Step,
)
from cefmp4.tasks import together
from cefmp4.temporal.asking import CHANGE_S, LOOK_S, asking, is_job_id
from cefmp4.temporal.names import SPEC, WORKFLOWS, flow_queue, step_queues
from cefmp4.temporal.seen import job_of

FLOW_STEP_S = timedelta(seconds=5)  # a workflow task lasts milliseconds; its worker may be dead
ALIVE = frozenset({JobState.QUEUED, JobState.IN_PROGRESS})
MOST_ALIVE = 1000  # that are looked at; more are counted
MOST_ASKED = 200  # for whether they run
FRESH_S = 1.0
REST_TIMES = 10  # as long as a look took: with a thousand jobs it takes a second
FAR_PRIORITY = 50
MOST_KEY_BYTES = 64
LISTED_PER_S = 1000  # at the least
MOST_RUNS = 1000  # of a hundred jobs
_PARALLEL = 20
_IDS_PER_QUESTION = 100
_POLLED_WITHIN = timedelta(seconds=70)  # a question to the engine stays open for a minute
_FLOWS = TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW
_STEPS = TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY
_BEGUN_FIRST = (Step.PUBLISH, Step.ENCODE, Step.LOOK, Step.DISCARD, Step.REPORT)


@dataclass(frozen=True, slots=True)
class _Alive:
    """What the engine has not ended, as it was seen at one moment."""

    running: list[Job]
    others: list[Job]
    ended: list[Job]  # that clear up, or tell of their end
    unseen: int  # they were too many
    until: float  # then it is looked at anew

    @property
    def by_state(self) -> dict[JobState, list[Job]]:
        return {
            JobState.IN_PROGRESS: self.running,
            JobState.QUEUED: self.others,
            **{state: [job for job in self.ended if job.state is state] for state in FINAL_STATES},
        }


class Desk:
    """`tells`: who is to be told of the end of every job that is begun here, beside its source."""

    def __init__(self, client: Client, *, tells: Sequence[str] = ()) -> None:
        self._client = client
        self._tells = tuple(tells)
        self._looking = {kind: asyncio.Lock() for kind in WORKFLOWS}
        self._alive: dict[JobKind, _Alive] = {}

    def __repr__(self) -> str:
        return f"<Desk {self._client.namespace}>"

    async def submit(self, spec: JobSpec) -> bool:
        """False: the job is known already, in whatever state."""
        try:
            await self._start(spec, WorkflowIDReusePolicy.REJECT_DUPLICATE)
        except WorkflowAlreadyStartedError:
            return False
        return True

    async def retry(self, job_id: str) -> None:
        """Begins a failed job anew, with all its attempts."""
        job = await self.get(job_id)
        if not job.has_failed:
            raise RefusedError(f"job {job_id} is {job.state}: only failed jobs can be tried again")
        await self.begin_again(job.spec)

    async def begin_again(self, spec: JobSpec) -> None:
        """Whatever came of it before."""
        async with asking(self._client, spec.id):
            former = await self._client.get_workflow_handle(spec.id).describe()
        try:
            await self._start(spec, WorkflowIDReusePolicy.ALLOW_DUPLICATE)
        except WorkflowAlreadyStartedError:
            raise RefusedError(
                f"job {spec.id} is still at work, or clearing up", hint="try again in a moment"
            ) from None
        self._alive.clear()
        await self._forget(Run(workflow_id=spec.id, run_id=former.run_id))

    async def cancel(self, job_id: str) -> JobState:
        """Returns the state it was in."""
        job = await self.get(job_id)
        if job.is_final and not job.is_telling:
            raise RefusedError(f"job {job_id} is {job.state} already")
        async with asking(self._client, job_id, within_s=CHANGE_S):
            await self._client.get_workflow_handle(job_id).cancel()
        self._alive.clear()
        return job.state

    async def find(self, job_id: str) -> Job | None:
        try:
            return await self.get(job_id)
        except UnknownJobError:
            return None

    async def get(self, job_id: str) -> Job:
        """Raises UnknownJobError."""
        if not is_job_id(job_id):
            raise UnknownJobError(f"there is no job {job_id!a}")
        async with asking(self._client, job_id):
            return await job_of(await self._client.get_workflow_handle(job_id).describe())

    async def latest(
        self, states: Iterable[JobState], limit: int, kind: JobKind | None = None
    ) -> list[Job]:
        """The newest of each state, in the order of the states. Of this kind; None: of all."""
        kinds, jobs = _kinds(kind), list[Job]()
        for state in states:
            left = limit - len(jobs)
            if left <= 0:
                break
            alive = await self._look_at_alive(kinds)
            found = {job.id: job for one in alive for job in one.by_state[state]}
            if state not in ALIVE:
                listed = await self._listed(_query({state}, kinds), left)
                known = await _known(await self._last_runs(listed, kinds))
                found |= {job.id: job for job in known if job.state is state}
            newest = sorted(found.values(), key=lambda job: job.submitted_at, reverse=True)
            jobs += newest[:left]
        return jobs

    async def complete_of(self, job_ids: Sequence[str]) -> set[str]:
        found: set[str] = set()
        for query, count in _by_ids(_query({*ALIVE, JobState.COMPLETE}, _kinds()), job_ids):
            listed = await self._listed(query, count)
            found |= {job.id for job in await _known(listed) if job.is_complete}
        return found

    async def counts(self, kind: JobKind | None = None) -> dict[JobState, int]:
        """Of this kind; None: of all."""
        kinds = _kinds(kind)
        alive = await self._look_at_alive(kinds)
        async with asking(self._client):
            ended = await self._client.count_workflows(f"{_of(kinds)} GROUP BY ExecutionStatus")
        of_status = Counter({str(group.group_values[0]): group.count for group in ended.groups})
        return {
            JobState.QUEUED: sum(len(one.others) + one.unseen for one in alive),
            JobState.IN_PROGRESS: sum(len(one.running) for one in alive),
            **{
                state: sum(of_status[name] for name in _STATUSES[state])
                + sum(len(one.by_state[state]) for one in alive)
                for state in (JobState.COMPLETE, JobState.FAILED)
            },
        }

    async def backlog(self, kind: JobKind) -> int:
        return sum(queue.stats.approximate_backlog_count for queue in await self._queues(kind))

    async def queue(self, kind: JobKind) -> QueueStats:
        """A job whose flow waits for a worker is in no step's queue yet."""
        flows, *steps = await self._queues(kind)
        (alive,) = await self._look_at_alive([kind])
        now = time.time()
        waiting = sum(job.due_at > now for job in alive.others)
        queued = sum(job.due_at <= now for job in alive.others)
        return QueueStats(
            queued=queued + alive.unseen,
            waiting=waiting,
            oldest_seconds=max(_age_of(each) for each in (flows, *steps)) if queued else 0.0,
            workers=len({name for each in steps for name in _pollers_of(each)}),
        )

    async def _queues(self, kind: JobKind) -> list[DescribeTaskQueueResponse]:
        """That of its flows first."""
        return await together(
            self._described(flow_queue(kind), _FLOWS),
            *(self._described(name, _STEPS) for name in step_queues(kind)),
        )

    async def _described(
        self, queue: str, type_: "TaskQueueType.ValueType"
    ) -> DescribeTaskQueueResponse:
        request = DescribeTaskQueueRequest(
            namespace=self._client.namespace,
            task_queue=TaskQueue(name=queue),
            task_queue_type=type_,
            report_stats=True,
        )
        async with asking(self._client):
            return await self._client.workflow_service.describe_task_queue(request)

    async def _listed(self, query: str, limit: int) -> list[WorkflowExecution]:
        async with asking(self._client, within_s=LOOK_S + limit / LISTED_PER_S):
            found = self._client.list_workflows(query, limit=limit, page_size=min(limit, 1000))
            return [item async for item in found]

    async def _last_runs(
        self, listed: Sequence[WorkflowExecution], kinds: Iterable[JobKind]
    ) -> list[WorkflowExecution]:
        """Without those whose job was begun again since: a job is what its last run is."""
        last: dict[str, WorkflowExecution] = {}
        for query, _ in _by_ids(_of(kinds), [item.id for item in listed]):
            for run in await self._listed(query, MOST_RUNS):
                if run.id not in last or run.start_time > last[run.id].start_time:
                    last[run.id] = run
        return [item for item in listed if item.run_id == last.get(item.id, item).run_id]

    async def _forget(self, ended: Run) -> None:
        """The engine counts each run of a job; it removes this one within a minute or so. Where
        it does not let us, the job is begun all the same."""
        request = DeleteWorkflowExecutionRequest(
            namespace=self._client.namespace, workflow_execution=ended
        )
        with suppress(RPCError):
            await self._client.workflow_service.delete_workflow_execution(
                request, timeout=timedelta(seconds=LOOK_S)
            )

    async def _look_at_alive(self, kinds: Iterable[JobKind]) -> list[_Alive]:
        """By kind: where many of one wait, those of the others are seen all the same."""
        return await together(*(self._look_at_alive_of(kind) for kind in kinds))

    async def _look_at_alive_of(self, kind: JobKind) -> _Alive:
        """Once a second for all who ask, and more seldom where there are many."""
        async with self._looking[kind]:
            alive = self._alive.get(kind)
            if alive is None or time.monotonic() >= alive.until:
                alive = self._alive[kind] = await self._seen_alive(_query(ALIVE, [kind]))
            return alive

    async def _seen_alive(self, query: str) -> _Alive:
        began_at = time.monotonic()
        listed = await self._listed(query, MOST_ALIVE)
        total = len(listed)
        if total == MOST_ALIVE:
            async with asking(self._client):
                total = (await self._client.count_workflows(query)).count
        known = await _known(listed)
        ended = [job for job in known if job.is_final]
        running = await self._running_of([job for job in known if not job.is_final])
        seen = {job.id for job in (*running, *ended)}
        others = [job for job in known if job.id not in seen]
        now = time.monotonic()
        until = now + max(FRESH_S, REST_TIMES * (now - began_at))
        return _Alive(running, others, ended, total - len(listed), until)

    async def _running_of(self, alive: Sequence[Job]) -> list[Job]:
        """The engine lists no running steps, so jobs are asked themselves, the likely ones first,
        until none of some runs."""
        running: list[Job] = []
        likely = _likely_first(alive)[:MOST_ASKED]
        for start in range(0, len(likely), _PARALLEL):
            chunk = likely[start : start + _PARALLEL]
            found = await together(*(self.find(job.id) for job in chunk))
            now_running = [job for job in found if job and job.is_running]
            running += now_running
            if not now_running:
                break
        return sorted(running, key=lambda job: job.submitted_at, reverse=True)

    async def _start(self, asked: JobSpec, reuse: WorkflowIDReusePolicy) -> None:
        spec = self._with_tells(asked)
        async with asking(self._client, spec.id, within_s=CHANGE_S):
            await self._client.start_workflow(
                WORKFLOWS[spec.kind],
                spec,
                id=spec.id,
                task_queue=flow_queue(spec.kind),
                task_timeout=FLOW_STEP_S,
                id_reuse_policy=reuse,
                memo={SPEC: spec},
                priority=Priority(
                    priority_key=_level_of(spec.priority), fairness_key=turns_of(spec.folder)
                ),
            )

    def _with_tells(self, spec: JobSpec) -> JobSpec:
        """A job that tells of something is nothing to tell of."""
        if spec.kind not in OFFERED_KINDS:
            return spec
        return replace(spec, tells=tuple(dict.fromkeys((*spec.tells, *self._tells))))


def turns_of(folder: str) -> str:
    """The engine takes 64 bytes of UTF-8; folders may have longer names, of any bytes."""
    name = folder.encode("utf-8", "surrogateescape")
    fits = len(name) <= MOST_KEY_BYTES and folder.isprintable()
    return folder if fits else hashlib.sha256(name).hexdigest()


def _level_of(priority: int) -> int:
    """The engine knows five levels, of which 1 comes first."""
    if priority == 0:
        return 3
    is_far = abs(priority) >= FAR_PRIORITY
    return (1 if is_far else 2) if priority > 0 else (5 if is_far else 4)


_STATUSES = {
    JobState.COMPLETE: ("Completed",),
    JobState.FAILED: ("Failed", "Canceled", "Terminated", "TimedOut"),
}


def _of(kinds: Iterable[JobKind]) -> str:
    return f"WorkflowType IN ({', '.join(repr(WORKFLOWS[kind]) for kind in kinds)})"


def _kinds(kind: JobKind | None = None) -> Sequence[JobKind]:
    return list(WORKFLOWS) if kind is None else [kind]


def _query(states: Iterable[JobState], kinds: Iterable[JobKind]) -> str:
    """The engine does not tell waiting from running jobs."""
    names = [name for state in states for name in _STATUSES.get(state, ("Running",))]
    statuses = ", ".join(repr(name) for name in dict.fromkeys(names))
    return f"{_of(kinds)} AND ExecutionStatus IN ({statuses})"


def _by_ids(query: str, job_ids: Iterable[str]) -> Iterator[tuple[str, int]]:
    """The same of these jobs alone, in questions that are not too long, and of how many each is."""
    asked = [job_id for job_id in job_ids if is_job_id(job_id)]
    for start in range(0, len(asked), _IDS_PER_QUESTION):
        chunk = asked[start : start + _IDS_PER_QUESTION]
        yield f"{query} AND WorkflowId IN ({', '.join(map(repr, chunk))})", len(chunk)


async def _known(listed: Iterable[WorkflowExecution]) -> list[Job]:
    """Without what somebody else put into the engine."""
    jobs = []
    for item in listed:
        with suppress(UnknownJobError):
            jobs.append(await job_of(item))
    return jobs


def _likely_first(alive: Sequence[Job]) -> list[Job]:
    """Of the same step and priority the engine takes the oldest of each folder in turn."""
    now, places = time.time(), Counter[tuple[Step, int, str]]()
    ranked: list[tuple[int, int, int, float, Job]] = []
    for job in sorted(alive, key=lambda job: job.submitted_at):
        if job.due_at > now:
            continue
        level = _level_of(job.spec.priority)
        turn = (job.step, level, job.spec.folder)
        places[turn] += 1
        begun = _BEGUN_FIRST.index(job.step)
        ranked.append((begun, level, places[turn], job.submitted_at, job))
    return [job for *_, job in sorted(ranked, key=lambda entry: entry[:4])]


def _age_of(queue: DescribeTaskQueueResponse) -> float:
    return queue.stats.approximate_backlog_age.ToTimedelta().total_seconds()


def _pollers_of(queue: DescribeTaskQueueResponse) -> set[str]:
    since = datetime.now(UTC) - _POLLED_WITHIN
    return {
        poller.identity
        for poller in queue.pollers
        if poller.last_access_time.ToDatetime(UTC) >= since
    }
