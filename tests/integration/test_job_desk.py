"""What the desk of jobs tells where a Temporal is away, full, or used by somebody else, too."""

import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from temporalio.client import Client
from tests.support.pretence import Pretence, in_state, pretending, until, with_progress
from tests.support.temporal_server import CODEC_KEY, JobPlace

from cefmp4.errors import (
    AccessDeniedError,
    RefusedError,
    ServerUnreachableError,
    UnknownJobError,
)
from cefmp4.model.job import MOST_TELLING_FIRST, FailReason, JobInput, JobKind, JobSpec, JobState
from cefmp4.temporal.connect import EngineConfig, connect
from cefmp4.temporal.desk import Desk
from cefmp4.temporal.names import WORKFLOWS, flow_queue
from cefmp4.temporal.worker import working

pytestmark = pytest.mark.integration
HLS = JobKind.HLS


def spec(name: str, *, folder: str = "", **params: str) -> JobSpec:
    return JobSpec(subject=name, kind=HLS, input=JobInput(key=name), params=params, folder=folder)


@pytest_asyncio.fixture
async def client(job_place: JobPlace) -> Client:
    return await job_place.connect()


@pytest.fixture
def desk(client: Client) -> Desk:
    return Desk(client)


@pytest_asyncio.fixture
async def stranger(job_place: JobPlace) -> Client:
    """Reaches the port, and has no key."""
    return await Client.connect(job_place.address, namespace=job_place.namespace)


async def put(stranger: Client, job_id: str, **memo: object) -> None:
    await stranger.start_workflow(
        WORKFLOWS[HLS], "x", id=job_id, task_queue=flow_queue(HLS), memo=memo
    )


async def test_what_strangers_started_hides_no_job(desk: Desk, stranger: Client) -> None:
    await put(stranger, "bare-hls")
    await put(stranger, "forged-hls", spec={"subject": "forged", "kind": "hls"}, standing={})
    await desk.submit(spec("ours"))

    async def is_listed() -> bool:
        return [job.id for job in await desk.latest(MOST_TELLING_FIRST, 9)] == ["ours-hls"]

    await until(is_listed)
    assert (await desk.counts())[JobState.QUEUED] == 1
    assert (await desk.queue(HLS)).queued == 1
    for job_id in ("bare-hls", "forged-hls"):
        assert await desk.find(job_id) is None
        for change in (desk.cancel, desk.retry):
            with pytest.raises(UnknownJobError, match="that we signed"):
                await change(job_id)


async def test_a_job_that_a_stranger_ended_has_failed(desk: Desk, stranger: Client) -> None:
    await desk.submit(spec("a"))
    await stranger.get_workflow_handle("a-hls").terminate()
    job = await in_state(desk, "a-hls", JobState.FAILED)
    assert (job.reason, job.error) == (FailReason.CANCELLED, "terminated in Temporal")
    await desk.retry("a-hls")
    assert (await desk.get("a-hls")).is_queued


@pytest.mark.parametrize(
    "job_id", ["", "a'b-hls", 'a"b', "a\\", "a%", "../x", "x" * 5000, "\udcff", "a\nb", "ä-hls"]
)
async def test_odd_names_are_nobodys(desk: Desk, job_id: str) -> None:
    assert await desk.find(job_id) is None
    assert await desk.complete_of([job_id, "' OR 1=1 --"]) == set()


async def test_what_runs_is_told_of_before_what_waits(
    desk: Desk, client: Client, tmp_path: Path
) -> None:
    """Though all that wait are newer, and more than are looked at."""
    pretence = Pretence()
    with pretending(tmp_path / "work", pretence) as host:
        async with working(client, host, drain_s=0):
            await desk.submit(spec("old", waits="1"))
            await with_progress(desk, "old-hls")
            for number in range(40):
                await desk.submit(spec(f"n{number}", waits="1"))

            async def are_told() -> bool:
                jobs = await desk.latest(MOST_TELLING_FIRST, 5)
                ids = [job.id for job in jobs]
                return ids == ["old-hls", *(f"n{number}-hls" for number in (39, 38, 37, 36))]

            await until(are_told)
            counts = await desk.counts()
            assert (counts[JobState.IN_PROGRESS], counts[JobState.QUEUED]) == (1, 40)
            pretence.goes_on.set()


async def test_a_job_that_backs_off_waits(desk: Desk, client: Client, tmp_path: Path) -> None:
    with pretending(tmp_path / "work", Pretence()) as host:
        async with working(client, host, drain_s=0):
            await desk.submit(spec("a", fails="9"))

            async def waits() -> bool:
                return (await desk.queue(HLS)).waiting == 1

            await until(waits)
            job = await desk.get("a-hls")
            assert (job.state, job.attempts, job.error) == (
                JobState.QUEUED,
                1,
                "the encoder is busy",
            )
            assert job.due_at > time.time()
            assert await desk.cancel("a-hls") is JobState.QUEUED
            with pytest.raises(RefusedError):
                await desk.retry("a-hls")
            await in_state(desk, "a-hls", JobState.FAILED)


async def test_a_worker_with_another_key_says_what_to_look_at(
    desk: Desk, job_place: JobPlace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = EngineConfig(
        address=job_place.address, namespace=job_place.namespace, codec_key=b"another key, as long"
    )
    other = await connect(config, identity="other|1", is_lazy=False)
    await desk.submit(spec("k", copy=""))
    with pretending(tmp_path / "work", Pretence()) as host:
        async with working(other, host, drain_s=0):
            job = await in_state(desk, "k-hls", JobState.FAILED)
    assert "TEMPORAL_CODEC_KEY must be the same" in job.error
    assert "is TEMPORAL_CODEC_KEY the same on all hosts?" in capsys.readouterr().out


async def test_a_job_that_is_tried_again_is_one_job(
    desk: Desk, client: Client, tmp_path: Path
) -> None:
    pretence = Pretence(error="no video in it")

    async def is_its_last_run_alone() -> bool:
        job = await desk.get("a-hls")
        listed = [one.submitted_at for one in await desk.latest([JobState.FAILED], 9)]
        return job.ended_at > 0 and listed == [job.submitted_at]

    with pretending(tmp_path / "work", pretence) as host:
        async with working(client, host, drain_s=0):
            await desk.submit(spec("a", copy="", bad="1"))
            await until(is_its_last_run_alone)
            await desk.retry("a-hls")
            await until(is_its_last_run_alone)
    assert len(pretence.made) == 2


async def test_without_a_worker_jobs_wait(desk: Desk) -> None:
    await desk.submit(spec("a"))

    async def is_told() -> bool:
        stats = await desk.queue(HLS)
        return (stats.queued, stats.workers) == (1, 0) and stats.oldest_seconds > 0

    await until(is_told)
    assert (await desk.counts())[JobState.QUEUED] == 1


@pytest_asyncio.fixture(params=["nobody", "silence", "namespace"])
async def away(request: pytest.FixtureRequest, job_place: JobPlace) -> AsyncIterator[Desk]:
    """A desk whose Temporal is not there, takes connections and says nothing, or has not our
    namespace."""
    namespace, address = "default", job_place.address
    with socket.create_server(("127.0.0.1", 0)) as listener:
        if request.param == "nobody":
            address = "127.0.0.1:1"
        elif request.param == "silence":
            address = f"127.0.0.1:{listener.getsockname()[1]}"
        else:
            namespace = "no-such"
        config = EngineConfig(address=address, namespace=namespace, codec_key=CODEC_KEY)
        yield Desk(await connect(config, identity="tests"))


async def test_a_temporal_that_is_away_is_said_so_soon(away: Desk) -> None:
    for question in (
        away.get("a-hls"),
        away.latest(MOST_TELLING_FIRST, 5),
        away.counts(),
        away.queue(HLS),
        away.complete_of(["a-hls"]),
    ):
        began_at = time.monotonic()
        with pytest.raises((ServerUnreachableError, AccessDeniedError), match="Temporal"):
            await question
        assert time.monotonic() - began_at < 3.5
