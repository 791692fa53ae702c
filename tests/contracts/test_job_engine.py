"""The engines of jobs that keep to one contract: the one in memory, and Temporal."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from temporalio.api.operatorservice.v1 import DeleteNamespaceRequest
from temporalio.client import Client
from tests.faults.redis_proxy import RedisProxy
from tests.support.memory_engine import MemoryEngine
from tests.support.pretence import WAIT_S, Pretence, in_state, pretending, until
from tests.support.temporal_server import CODEC_KEY, TemporalServer

from cefmp4.errors import (
    PermanentError,
    RefusedError,
    ServerUnreachableError,
    UnknownJobError,
)
from cefmp4.jobs import flow
from cefmp4.jobs.steps import Host
from cefmp4.model.job import (
    MOST_TELLING_FIRST,
    FailReason,
    JobEnd,
    JobInput,
    JobKind,
    JobSpec,
    JobState,
    Step,
)
from cefmp4.ports.jobs import JobDesk
from cefmp4.temporal import asking as asking_module
from cefmp4.temporal.connect import EngineConfig, connect
from cefmp4.temporal.desk import Desk
from cefmp4.temporal.worker import working

INTEGRATION = pytest.mark.integration


@pytest.fixture
def host(tmp_path: Path, pretence: Pretence) -> Iterator[Host]:
    with pretending(tmp_path / "work", pretence) as host:
        yield host


@pytest.fixture
def pretence() -> Pretence:
    return Pretence()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "FIRST_PAUSE_S", 0.1)


@pytest.fixture
async def memory_desk(host: Host) -> AsyncIterator[JobDesk]:
    memory = MemoryEngine(host)
    yield memory
    await memory.stop()


@pytest.fixture
async def config(temporal_server: TemporalServer) -> EngineConfig:
    namespace = await temporal_server.new_namespace()
    return EngineConfig(address=temporal_server.address, namespace=namespace, codec_key=CODEC_KEY)


@pytest.fixture
async def temporal_desk(config: EngineConfig, host: Host) -> AsyncIterator[JobDesk]:
    client = await connect(config, identity="tests", is_lazy=False)
    async with working(client, host, drain_s=0):
        yield Desk(client)


@pytest.fixture(params=["memory_desk", pytest.param("temporal_desk", marks=INTEGRATION)])
def desk(request: pytest.FixtureRequest) -> JobDesk:
    found: JobDesk = request.getfixturevalue(request.param)
    return found


def spec(name: str, *, priority: int = 0, folder: str = "", **params: str) -> JobSpec:
    return JobSpec(
        subject=name,
        kind=JobKind.HLS,
        input=JobInput(bucket="b", key=f"streams/{name}.mp4", path="/in/\udcff.mp4", size=2**60),
        params=params,
        priority=priority,
        folder=folder,
    )


async def test_a_job_is_known_once_however_often_it_is_submitted(desk: JobDesk) -> None:
    assert await desk.submit(spec("a", copy="1"))
    assert not await desk.submit(spec("a", copy="1"))
    await in_state(desk, "a-hls", JobState.COMPLETE)
    assert not await desk.submit(spec("a", copy="1"))


async def test_a_job_comes_back_as_it_was_submitted(desk: JobDesk) -> None:
    asked = spec("a", priority=-4, folder="Kamera Süd", copy="1")
    await desk.submit(asked)
    assert (await desk.get("a-hls")).spec == asked
    assert (await in_state(desk, "a-hls", JobState.COMPLETE)).spec == asked


async def test_a_complete_job_tells_its_result(desk: JobDesk, pretence: Pretence) -> None:
    await desk.submit(spec("a"))
    job = await in_state(desk, "a-hls", JobState.COMPLETE)
    assert pretence.published == [("a-hls", job.accepted)]
    assert job.result == {"by": job.accepted}
    assert (job.attempts, job.reason, job.error) == (1, None, "")
    assert job.ended_at >= job.submitted_at > 0


async def test_what_was_made_before_ends_at_once(desk: JobDesk, pretence: Pretence) -> None:
    await desk.submit(spec("a", copy="1", old="1"))
    await in_state(desk, "a-hls", JobState.COMPLETE)
    assert pretence.published == []


async def test_a_running_job_tells_how_far_it_is(desk: JobDesk, pretence: Pretence) -> None:
    await desk.submit(spec("a", waits="1"))

    async def is_told() -> bool:
        progress = (await desk.get("a-hls")).progress
        return progress is not None and progress.percent == 42.0

    await until(is_told)
    assert (await desk.get("a-hls")).state is JobState.IN_PROGRESS
    pretence.goes_on.set()
    await in_state(desk, "a-hls", JobState.COMPLETE)


async def test_a_second_encode_waits_for_the_slot(desk: JobDesk, pretence: Pretence) -> None:
    await desk.submit(spec("a", waits="1"))
    await in_state(desk, "a-hls", JobState.IN_PROGRESS)
    await until(lambda: _has_begun(pretence, "a-hls"))
    await desk.submit(spec("b", waits="1"))
    await desk.submit(spec("c", copy="1"))
    await in_state(desk, "c-hls", JobState.COMPLETE)
    assert [job_id for job_id, _ in pretence.made] == ["a-hls", "c-hls"]
    pretence.goes_on.set()
    await in_state(desk, "b-hls", JobState.COMPLETE)


async def _has_begun(pretence: Pretence, job_id: str) -> bool:
    return job_id in dict(pretence.made)


async def test_a_bad_input_fails_at_once(desk: JobDesk, pretence: Pretence) -> None:
    await desk.submit(spec("a", bad="no video in it"))
    job = await in_state(desk, "a-hls", JobState.FAILED)
    assert (job.reason, job.error, len(pretence.made)) == (FailReason.ERROR, "no video in it", 1)
    await until(lambda: _is_discarded(pretence))


async def _is_discarded(pretence: Pretence) -> bool:
    return {attempt for _, attempt in pretence.made} <= {name for _, name in pretence.discarded}


async def test_attempts_are_counted_and_used_up(desk: JobDesk, pretence: Pretence) -> None:
    await desk.submit(spec("a", fails="9"))
    job = await in_state(desk, "a-hls", JobState.FAILED)
    assert (job.reason, job.attempts, len(pretence.made)) == (FailReason.DEAD_LETTER, 3, 3)
    assert len({attempt for _, attempt in pretence.made}) == 3


async def test_a_server_that_is_away_uses_up_no_attempt(desk: JobDesk, pretence: Pretence) -> None:
    await desk.submit(spec("a", away="4"))
    job = await in_state(desk, "a-hls", JobState.COMPLETE)
    assert (job.attempts, len(pretence.made)) == (1, 5)


async def test_a_failed_attempt_waits_before_the_next_and_can_be_cancelled_then(
    desk: JobDesk, pretence: Pretence, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow, "FIRST_PAUSE_S", 60.0)
    await desk.submit(spec("a", fails="1"))

    async def pauses() -> bool:
        return (await desk.get("a-hls")).due_at > 0

    await until(pauses)
    job = await desk.get("a-hls")
    assert (job.state, job.attempts, job.error) == (JobState.QUEUED, 1, "the encoder is busy")
    assert 50 < job.due_at - job.submitted_at < 70
    assert await desk.cancel("a-hls") is JobState.QUEUED
    job = await in_state(desk, "a-hls", JobState.FAILED)
    assert (job.reason, len(pretence.made)) == (FailReason.CANCELLED, 1)


async def test_a_job_that_waits_for_a_slot_is_cancelled_at_once(
    desk: JobDesk, pretence: Pretence
) -> None:
    await desk.submit(spec("a", waits="1"))
    await until(lambda: _has_begun(pretence, "a-hls"))
    await desk.submit(spec("b"))
    await until(lambda: _encodes_wait(desk, 1))
    assert await desk.cancel("b-hls") is JobState.QUEUED
    assert (await in_state(desk, "b-hls", JobState.FAILED)).reason is FailReason.CANCELLED
    pretence.goes_on.set()
    await in_state(desk, "a-hls", JobState.COMPLETE)
    assert "b-hls" not in dict(pretence.made)


async def _encodes_wait(desk: JobDesk, count: int) -> bool:
    jobs = await desk.latest([JobState.QUEUED], 99)
    queued = (await desk.queue(JobKind.HLS)).queued
    return queued == len(jobs) == count and {job.step for job in jobs} == {Step.ENCODE}


async def test_priority_goes_first_and_folders_take_turns(
    desk: JobDesk, pretence: Pretence
) -> None:
    await desk.submit(spec("first", waits="1"))
    await until(lambda: _has_begun(pretence, "first-hls"))
    for number in range(4):
        await desk.submit(spec(f"one{number}", folder="one"))
    for number in range(4):
        await desk.submit(spec(f"two{number}", folder="two"))
    for name, priority in (("low", -10), ("high", 10)):
        await desk.submit(spec(name, folder="one", priority=priority))
    await until(lambda: _encodes_wait(desk, 10))
    pretence.goes_on.set()
    await in_state(desk, "low-hls", JobState.COMPLETE)
    order = [job_id.removesuffix("-hls") for job_id, _ in pretence.made]
    assert (order[:2], order[-1]) == (["first", "high"], "low")
    turns = [name[:3] for name in order[2:-1]]
    assert turns[0::2] in (["one"] * 4, ["two"] * 4)
    assert turns[1::2] in (["one"] * 4, ["two"] * 4)


async def test_a_cancel_ends_a_running_job(desk: JobDesk, pretence: Pretence) -> None:
    await desk.submit(spec("a", waits="1"))
    await in_state(desk, "a-hls", JobState.IN_PROGRESS)
    await until(lambda: _has_begun(pretence, "a-hls"))
    assert await desk.cancel("a-hls") is JobState.IN_PROGRESS
    job = await in_state(desk, "a-hls", JobState.FAILED)
    assert job.reason is FailReason.CANCELLED
    await until(lambda: _is_discarded(pretence))
    with pytest.raises(RefusedError):
        await desk.cancel("a-hls")


async def test_a_failed_job_can_begin_anew_with_all_its_attempts(
    desk: JobDesk, pretence: Pretence
) -> None:
    await desk.submit(spec("a", fails="3"))
    await in_state(desk, "a-hls", JobState.FAILED)

    async def is_taken() -> bool:
        try:
            await desk.retry("a-hls")
        except RefusedError:
            return False  # it clears up
        return True

    await until(is_taken)
    job = await in_state(desk, "a-hls", JobState.COMPLETE)
    assert (job.attempts, len(pretence.made)) == (1, 4)
    with pytest.raises(RefusedError):
        await desk.retry("a-hls")


async def test_an_unknown_job_is_said_so(desk: JobDesk) -> None:
    assert await desk.find("no-hls") is None
    for question in (desk.get, desk.cancel, desk.retry):
        with pytest.raises(UnknownJobError):
            await question("no-hls")


async def test_jobs_are_listed_the_most_telling_first(desk: JobDesk, pretence: Pretence) -> None:
    await desk.submit(spec("done", copy="1"))
    await desk.submit(spec("bad", bad="no video in it"))
    await in_state(desk, "done-hls", JobState.COMPLETE)
    await in_state(desk, "bad-hls", JobState.FAILED)
    await desk.submit(spec("runs", waits="1"))
    await in_state(desk, "runs-hls", JobState.IN_PROGRESS)
    await until(lambda: _has_begun(pretence, "runs-hls"))
    await desk.submit(spec("waits", waits="1"))
    expected = ["runs-hls", "waits-hls", "bad-hls", "done-hls"]

    async def are_listed() -> bool:
        return [job.id for job in await desk.latest(MOST_TELLING_FIRST, 9)] == expected

    await until(are_listed)
    assert [job.id for job in await desk.latest([JobState.FAILED], 9)] == ["bad-hls"]
    assert len(await desk.latest(MOST_TELLING_FIRST, 2)) == 2
    assert await desk.complete_of(["done-hls", "bad-hls", "x-hls"]) == {"done-hls"}

    async def are_counted() -> bool:
        return all(count == 1 for count in (await desk.counts()).values())

    await until(are_counted)
    assert (await desk.queue(JobKind.HLS)).workers == 1

    async def one_waits() -> bool:
        return await desk.backlog(JobKind.HLS) == 1

    await until(one_waits)
    assert await desk.backlog(JobKind.CALLBACK) == 0
    assert await desk.latest(MOST_TELLING_FIRST, 9, JobKind.CALLBACK) == []
    assert len(await desk.latest(MOST_TELLING_FIRST, 9, JobKind.HLS)) == 4
    pretence.goes_on.set()


async def test_a_job_that_only_tells_of_its_end_has_ended(
    desk: JobDesk, host: Host, pretence: Pretence
) -> None:
    """Whoever is to be told may be away for days; nothing waits for a worker meanwhile."""
    told: list[JobEnd] = []
    is_deaf = True

    async def report(end: JobEnd) -> None:
        told.append(end)
        if is_deaf:
            raise ServerUnreachableError("nobody listens")

    assert isinstance(host.reporters, dict)
    host.reporters["somebody"] = report
    await desk.submit(replace(spec("a", copy="1"), tells=("somebody",)))
    await desk.submit(replace(spec("b", bad="no video in it"), tells=("somebody",)))
    await until(lambda: _are_many(told))
    for name, state in (("a-hls", JobState.COMPLETE), ("b-hls", JobState.FAILED)):
        job = await in_state(desk, name, state)
        assert (job.is_telling, job.step) == (True, Step.REPORT)
        assert job.ended_at == pytest.approx(job.submitted_at, abs=30)

        async def is_listed(state: JobState = state, name: str = name) -> bool:
            return [one.id for one in await desk.latest([state], 9)] == [name]

        await until(is_listed)
    assert await desk.complete_of(["a-hls", "b-hls"]) == {"a-hls"}
    assert (await desk.queue(JobKind.HLS)).depth == await desk.backlog(JobKind.HLS) == 0
    assert await desk.latest([JobState.QUEUED, JobState.IN_PROGRESS], 9) == []
    assert await desk.cancel("b-hls") is JobState.FAILED  # nobody shall be told of it
    is_deaf = False

    async def is_over() -> bool:
        jobs = [await desk.get(name) for name in ("a-hls", "b-hls")]
        return not any(job.is_telling for job in jobs)

    await until(is_over)
    assert (await desk.get("a-hls")).is_complete
    assert (await desk.get("b-hls")).reason is FailReason.ERROR
    assert len({(end.spec.id, end.at) for end in told}) == 2
    with pytest.raises(RefusedError):
        await desk.cancel("a-hls")


async def _are_many(told: list[JobEnd]) -> bool:
    return len({end.spec.id for end in told}) == 2 and len(told) > 3


# What follows needs workers that stop, die and come back, which the engine in memory has none of.


@pytest.fixture
async def proxy(temporal_server: TemporalServer) -> AsyncIterator[RedisProxy]:
    """A way to the server that can be cut."""
    proxy = RedisProxy(temporal_server.port)
    await proxy.start()
    yield proxy
    await proxy.stop()


@asynccontextmanager
async def worker(config: EngineConfig, host: Host, name: str) -> AsyncIterator[Desk]:
    client = await connect(config, identity=name, is_lazy=False)
    async with working(client, host, drain_s=0):
        yield Desk(client)


@pytest.fixture
def other_pretence() -> Pretence:
    return Pretence()


@pytest.fixture
def other_host(tmp_path: Path, other_pretence: Pretence) -> Iterator[Host]:
    with pretending(tmp_path / "elsewhere", other_pretence) as host:
        yield host


@pytest.mark.integration
async def test_a_worker_that_stops_hands_its_step_back(
    config: EngineConfig,
    host: Host,
    pretence: Pretence,
    other_host: Host,
    other_pretence: Pretence,
) -> None:
    other_pretence.goes_on.set()
    async with worker(config, host, "stops") as desk:
        await desk.submit(spec("a", waits="1"))
        await until(lambda: _has_begun(pretence, "a-hls"))
    assert await _is_discarded(pretence)
    async with worker(config, other_host, "goes on") as desk:
        job = await in_state(desk, "a-hls", JobState.COMPLETE)
    assert (job.attempts, len(other_pretence.made)) == (1, 1)
    assert pretence.published == []
    assert list(host.workplace.folder.iterdir()) == []


@pytest.mark.integration
async def test_the_step_of_a_worker_that_dies_is_done_elsewhere(
    config: EngineConfig,
    host: Host,
    pretence: Pretence,
    other_host: Host,
    other_pretence: Pretence,
    proxy: RedisProxy,
) -> None:
    """It lives on, cut off, and comes back when another has its place: it changes nothing then."""
    other_pretence.goes_on.set()
    cut_off = replace(config, address=f"127.0.0.1:{proxy.port}")
    async with worker(cut_off, host, "cut off") as desk:
        await desk.submit(spec("a", waits="1"))
        await until(lambda: _has_begun(pretence, "a-hls"))
        await proxy.stop()
        async with worker(config, other_host, "other") as desk:
            job = await in_state(desk, "a-hls", JobState.COMPLETE)
            assert (job.attempts, pretence.published) == (2, [])
            assert other_pretence.published == [("a-hls", job.accepted)]
            pretence.goes_on.set()
            await proxy.start()
            await until(lambda: _is_discarded(pretence))
            after = await desk.get("a-hls")
            assert (after.result, after.accepted) == (job.result, job.accepted)
    assert pretence.published == []


@pytest.mark.integration
async def test_a_worker_that_was_only_cut_off_costs_no_attempt(
    config: EngineConfig,
    host: Host,
    pretence: Pretence,
    other_host: Host,
    other_pretence: Pretence,
    proxy: RedisProxy,
) -> None:
    cut_off = replace(config, address=f"127.0.0.1:{proxy.port}")
    async with worker(cut_off, host, "cut off") as desk:
        await desk.submit(spec("a", waits="1"))
        await until(lambda: _has_begun(pretence, "a-hls"))
        await proxy.stop()
        async with worker(config, other_host, "other") as desk:
            await until(lambda: _has_begun(other_pretence, "a-hls"))
            await proxy.start()

            async def is_forgiven() -> bool:
                return (await desk.get("a-hls")).attempts == 1

            await until(is_forgiven)
            assert await _is_discarded(pretence)
            other_pretence.goes_on.set()
            assert (await in_state(desk, "a-hls", JobState.COMPLETE)).attempts == 1


@pytest.mark.integration
async def test_a_worker_whose_namespace_is_gone_ends(
    config: EngineConfig, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking_module, "ASKED_EVERY_S", 0.1)

    async def work_without_it() -> None:
        async with worker(config, host, "one"), asyncio.timeout(WAIT_S):
            operator = await Client.connect(config.address)
            await operator.operator_service.delete_namespace(
                DeleteNamespaceRequest(namespace=config.namespace)
            )
            await asyncio.get_running_loop().create_future()

    with pytest.raises(ExceptionGroup) as caught:
        await work_without_it()
    assert caught.group_contains(PermanentError, match="no namespace")
