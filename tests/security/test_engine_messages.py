"""What another user of the machine puts into the engine runs and publishes nothing: it has no key,
but it may start, answer, signal and end what it likes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.typing import EventDict
from temporalio.api.common.v1 import Payload, Payloads
from temporalio.api.enums.v1 import EventType
from temporalio.api.failure.v1 import ApplicationFailureInfo, Failure
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import (
    PollActivityTaskQueueRequest,
    PollActivityTaskQueueResponse,
    RecordActivityTaskHeartbeatByIdRequest,
    RespondActivityTaskCompletedByIdRequest,
    RespondActivityTaskCompletedRequest,
    RespondActivityTaskFailedRequest,
)
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowFailureError
from temporalio.common import RawValue
from temporalio.worker import Worker
from tests.support.pretence import Pretence, in_state, pretending, until
from tests.support.temporal_server import JobPlace

from cefmp4.jobs import flow
from cefmp4.jobs.slots import Slots
from cefmp4.jobs.steps import Host
from cefmp4.model.job import Job, JobInput, JobKind, JobSpec, JobState, Step
from cefmp4.temporal.desk import Desk
from cefmp4.temporal.names import LIVES, WORKFLOWS, flow_queue, queue_of
from cefmp4.temporal.worker import working
from cefmp4.temporal.workflows import HlsJob

pytestmark = pytest.mark.integration

HLS = JobKind.HLS
REFUSED = "the engine holds what we did not sign: refused"
SOON_S = 20


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "FIRST_PAUSE_S", 0.1)


@pytest.fixture
def pretence() -> Pretence:
    return Pretence()


@pytest.fixture
def host(tmp_path: Path, pretence: Pretence) -> Iterator[Host]:
    with pretending(tmp_path / "work", pretence) as host:
        yield host


@pytest.fixture
def lines() -> Iterator[list[EventDict]]:
    with structlog.testing.capture_logs() as lines:
        yield lines


@asynccontextmanager
async def at_work(place: JobPlace, host: Host) -> AsyncIterator[Desk]:
    client = await place.connect()
    async with working(client, host, drain_s=0):
        yield Desk(client)


@pytest.fixture
async def desk(job_place: JobPlace, host: Host) -> AsyncIterator[Desk]:
    async with at_work(job_place, host) as desk:
        yield desk


@pytest.fixture
async def stranger(job_place: JobPlace) -> Client:
    return await Client.connect(job_place.address, namespace=job_place.namespace)


def spec(name: str = "a", **params: str) -> JobSpec:
    return JobSpec(subject=name, kind=HLS, input=JobInput(key=name), params=params)


def refusals(lines: list[EventDict], job_id: str) -> int:
    return len([one for one in lines if (one["event"], one.get("job_id")) == (REFUSED, job_id)])


def plain(data: bytes, **metadata: bytes) -> Payload:
    return Payload(metadata={"encoding": b"json/plain", **metadata}, data=data)


async def history(stranger: Client, job_id: str) -> list[HistoryEvent]:
    found = await stranger.get_workflow_handle(job_id).fetch_history()
    return list(found.events)


async def signed_answers(stranger: Client, job_id: str) -> list[Payload]:
    """What anybody can read there."""
    return [
        event.activity_task_completed_event_attributes.result.payloads[0]
        for event in await history(stranger, job_id)
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED
    ]


async def taken(stranger: Client, step: Step) -> PollActivityTaskQueueResponse:
    """Takes a step, as a worker does."""
    request = PollActivityTaskQueueRequest(
        namespace=stranger.namespace,
        task_queue=TaskQueue(name=queue_of(HLS, step)),
        identity="stranger",
    )
    async with asyncio.timeout(SOON_S):
        while True:
            task = await stranger.workflow_service.poll_activity_task_queue(request)
            if task.task_token:
                return task


async def answer(stranger: Client, task: PollActivityTaskQueueResponse, result: Payload) -> None:
    await stranger.workflow_service.respond_activity_task_completed(
        RespondActivityTaskCompletedRequest(
            task_token=task.task_token,
            namespace=stranger.namespace,
            result=Payloads(payloads=[result]),
        )
    )


async def ends(stranger: Client, job_id: str) -> None:
    with pytest.raises(WorkflowFailureError):
        async with asyncio.timeout(SOON_S):
            await stranger.get_workflow_handle(job_id).result()


SHAPES: dict[str, list[Any]] = {
    "an order like ours": [{"subject": "evil", "kind": "hls", "input": {"key": "k"}}],
    "nothing": [],
    "too much": [{"subject": "evil"}, {"subject": "evil"}],
    "another shape": [[[[["deep"]]]]],
    "a megabyte": ["x" * 1_000_000],
}


# Of a start without arguments, the engine's client leaves a coroutine behind.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("orders", SHAPES.values(), ids=SHAPES)
async def test_an_order_that_we_did_not_sign_runs_nothing(
    desk: Desk,
    stranger: Client,
    pretence: Pretence,
    lines: list[EventDict],
    orders: list[Any],
    request: pytest.FixtureRequest,
) -> None:
    job_id = f"evil{len(request.node.name)}-hls"
    await stranger.start_workflow(
        WORKFLOWS[HLS], args=orders, id=job_id, task_queue=flow_queue(HLS)
    )
    await ends(stranger, job_id)
    assert refusals(lines, job_id) == bool(orders)
    assert not pretence.made
    assert not [one for one in await history(stranger, job_id) if "ACTIVITY" in _name(one)]
    await does_a_job(desk)


def _name(event: HistoryEvent) -> str:
    return EventType.Name(event.event_type)


async def test_what_we_signed_as_something_else_is_no_order(
    desk: Desk, stranger: Client, pretence: Pretence
) -> None:
    await desk.submit(spec("a", bad="no video"))
    await in_state(desk, "a-hls", JobState.FAILED)
    told = (await stranger.get_workflow_handle("a-hls").describe()).raw_info.memo.fields["standing"]
    await until(lambda: _has_ended(stranger, "a-hls"))
    made = len(pretence.made)
    await stranger.start_workflow(
        WORKFLOWS[HLS], RawValue(told), id="a-hls", task_queue=flow_queue(HLS)
    )
    await ends(stranger, "a-hls")
    assert len(pretence.made) == made


async def _has_ended(stranger: Client, job_id: str) -> bool:
    found = await stranger.get_workflow_handle(job_id).describe()
    return found.status is not WorkflowExecutionStatus.RUNNING


async def does_a_job(desk: Desk) -> Job:
    await desk.submit(spec("ours"))
    return await in_state(desk, "ours-hls", JobState.COMPLETE)


Forger = Callable[[Client, PollActivityTaskQueueResponse], Awaitable[Payload]]


async def _unsigned(_stranger: Client, task: PollActivityTaskQueueResponse) -> Payload:
    return plain(b'{"step":"look","attempt":"a0","summary":{"master_key":"mine"}}')


async def _signed_by_another(_stranger: Client, task: PollActivityTaskQueueResponse) -> Payload:
    return plain(b"{}", **{"cefmp4-hmac-sha256": b"0" * 64})


async def _of_another_job(stranger: Client, task: PollActivityTaskQueueResponse) -> Payload:
    return (await signed_answers(stranger, "before-hls"))[0]


async def _its_order(_stranger: Client, task: PollActivityTaskQueueResponse) -> Payload:
    """Signed for this job, but as something else."""
    return task.input.payloads[0]


async def _huge(_stranger: Client, task: PollActivityTaskQueueResponse) -> Payload:
    return plain(b'"' + b"x" * 1_900_000 + b'"')


async def _no_encoding(_stranger: Client, task: PollActivityTaskQueueResponse) -> Payload:
    return Payload(data=b"\x80\x04\x95\xff")


FORGERS = [_unsigned, _signed_by_another, _of_another_job, _its_order, _huge, _no_encoding]


@pytest.mark.parametrize("forge", FORGERS)
async def test_an_answer_that_is_not_ours_is_none(
    job_place: JobPlace, host: Host, stranger: Client, pretence: Pretence, forge: Forger
) -> None:
    """The step is done again, and costs no attempt."""
    async with at_work(job_place, host) as desk:
        await desk.submit(spec("before", copy="1"))
        await in_state(desk, "before-hls", JobState.COMPLETE)
    pretence.published.clear()
    await desk.submit(spec("a", copy="1"))
    task = asyncio.create_task(taken(stranger, Step.LOOK))
    async with only_flows(job_place, host):
        found = await task
        await answer(stranger, found, await forge(stranger, found))
    async with at_work(job_place, host) as desk:
        job = await in_state(desk, "a-hls", JobState.COMPLETE)
    assert (job.attempts, job.result) == (1, {"by": job.accepted})
    assert pretence.published == [("a-hls", job.accepted)]


@asynccontextmanager
async def only_flows(place: JobPlace, host: Host) -> AsyncIterator[None]:
    """A worker that takes no step, so that the stranger is the first."""
    client = await place.connect()
    async with Worker(
        client, task_queue=flow_queue(HLS), workflows=[HlsJob], max_cached_workflows=0
    ):
        yield
        await until(lambda: _waits(client, "a-hls"))


async def _waits(client: Client, job_id: str) -> bool:
    """A turn that a worker leaves undone is waited for, for seconds, by the engine."""
    *_, latest = await history(client, job_id)
    return latest.event_type not in (
        EventType.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED,
        EventType.EVENT_TYPE_WORKFLOW_TASK_STARTED,
    )


async def test_an_answer_to_another_step_of_the_job_is_none(
    job_place: JobPlace, host: Host, stranger: Client, pretence: Pretence
) -> None:
    async with at_work(job_place, replace(host, slots=Slots({}))) as desk:
        await desk.submit(spec("a"))
        task = await taken(stranger, Step.ENCODE)
        (looked,) = await signed_answers(stranger, "a-hls")
        await answer(stranger, task, looked)
        await until(lambda: _waits(stranger, "a-hls"))
    async with at_work(job_place, host) as desk:
        job = await in_state(desk, "a-hls", JobState.COMPLETE)
    assert (job.attempts, len(pretence.made)) == (1, 1)
    assert pretence.published == [("a-hls", job.accepted)]


async def _has(list_: list[Any]) -> bool:
    return bool(list_)


@pytest.mark.parametrize("detail", [b'"input"', b'["input","look","a0","no"]', b"\xff"])
async def test_a_forged_failure_ends_no_job(
    job_place: JobPlace, host: Host, stranger: Client, detail: bytes
) -> None:
    desk = Desk(await job_place.connect())
    await desk.submit(spec("a", copy="1"))
    async with only_flows(job_place, host):
        task = await taken(stranger, Step.LOOK)
        info = ApplicationFailureInfo(
            type="input", non_retryable=True, details=Payloads(payloads=[plain(detail)])
        )
        await stranger.workflow_service.respond_activity_task_failed(
            RespondActivityTaskFailedRequest(
                task_token=task.task_token,
                namespace=stranger.namespace,
                failure=Failure(message="evil", application_failure_info=info),
            )
        )
    async with at_work(job_place, host) as desk:
        job = await in_state(desk, "a-hls", JobState.COMPLETE)
    assert job.attempts == 1


async def test_signals_that_are_not_ours_change_nothing(
    desk: Desk, stranger: Client, pretence: Pretence
) -> None:
    await desk.submit(spec("a", waits="1"))
    await until(lambda: _has(pretence.made))
    handle = stranger.get_workflow_handle("a-hls")
    things: list[list[Any]] = [
        [],
        ["a0"],
        [pretence.made[0][1]],
        ["a", "b"],
        [{"deep": [[]]}],
        ["x" * 100_000],
    ]
    for args in things:
        await handle.signal(LIVES, args=args)
        await handle.signal("unheard of", args=args)
    memo = (await handle.describe()).raw_info.memo.fields
    await handle.signal(LIVES, RawValue(memo["spec"]))
    pretence.goes_on.set()
    job = await in_state(desk, "a-hls", JobState.COMPLETE)
    assert (job.attempts, len(pretence.made)) == (1, 1)


async def test_junk_for_a_heartbeat_stops_no_step(
    desk: Desk, stranger: Client, pretence: Pretence
) -> None:
    await desk.submit(spec("a", waits="1"))
    await until(lambda: _has(pretence.made))
    for junk in (b"\xff", b'{"percent": "many"}', b'"' + b"x" * 500_000 + b'"'):
        await stranger.workflow_service.record_activity_task_heartbeat_by_id(
            RecordActivityTaskHeartbeatByIdRequest(
                namespace=stranger.namespace,
                workflow_id="a-hls",
                activity_id=await running_step(stranger, "a-hls"),
                details=Payloads(payloads=[plain(junk)]),
            )
        )
        assert (await desk.get("a-hls")).is_running
    pretence.goes_on.set()
    await in_state(desk, "a-hls", JobState.COMPLETE)


async def running_step(stranger: Client, job_id: str) -> str:
    found = await stranger.get_workflow_handle(job_id).describe()
    return found.raw_description.pending_activities[0].activity_id


async def test_a_step_that_runs_here_is_answered_by_nobody_else(
    desk: Desk, stranger: Client, pretence: Pretence
) -> None:
    """Who answers in its place makes it be done again; what it wrote is taken back."""
    await desk.submit(spec("a", waits="1"))
    await until(lambda: _has(pretence.made))
    first = pretence.made[0]
    await stranger.workflow_service.respond_activity_task_completed_by_id(
        RespondActivityTaskCompletedByIdRequest(
            namespace=stranger.namespace,
            workflow_id="a-hls",
            activity_id=await running_step(stranger, "a-hls"),
            result=Payloads(payloads=[plain(b"{}")]),
        )
    )
    await until(lambda: _is_in(first, pretence.discarded))
    pretence.goes_on.set()
    job = await in_state(desk, "a-hls", JobState.COMPLETE)
    assert (job.attempts, pretence.published) == (1, [("a-hls", job.accepted)])
    assert job.accepted != first[1]


async def _is_in(one: Any, list_: list[Any]) -> bool:
    return one in list_


async def test_a_step_that_is_taken_and_never_answered_is_done_elsewhere(
    job_place: JobPlace, host: Host, stranger: Client, pretence: Pretence
) -> None:
    """It costs the six seconds of a heartbeat, and one attempt."""
    desk = Desk(await job_place.connect())
    await desk.submit(spec("a", copy="1"))
    async with only_flows(job_place, host):
        await taken(stranger, Step.LOOK)
    async with at_work(job_place, host) as desk:
        job = await in_state(desk, "a-hls", JobState.COMPLETE)
    assert job.attempts == 2


async def test_a_job_that_is_terminated_is_failed_and_can_be_tried_again(
    desk: Desk, stranger: Client, pretence: Pretence
) -> None:
    await desk.submit(spec("a", waits="1"))
    await until(lambda: _has(pretence.made))
    await stranger.get_workflow_handle("a-hls").terminate("evil")
    await in_state(desk, "a-hls", JobState.FAILED)
    assert pretence.published == []
    pretence.goes_on.set()
    await desk.retry("a-hls")
    job = await in_state(desk, "a-hls", JobState.COMPLETE)
    assert pretence.published == [("a-hls", job.accepted)]
