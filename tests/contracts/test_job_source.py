"""The sources of jobs that keep to one contract: the one in memory, and each that JOB_SOURCE_TYPE
names, on a real server. The engine is the one in memory, with the product's own flows."""

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from redis.asyncio import Redis
from tests.support import redis_list_backend as redis_list
from tests.support.memory_engine import MemoryEngine
from tests.support.postgres_jobs import jobs_in_postgres
from tests.support.pretence import Pretence, pretending, until
from tests.support.servers import ValkeyServer
from tests.support.source_backend import Backend, MemoryBackend, Seen
from tests.support.surreal_backend import (
    SurrealBackend,
    config_of,
    embedded_config,
    sources_of,
)
from tests.support.surreal_server import serving_surreal

from cefmp4.app.sources import open_sources
from cefmp4.config.reading import load_settings
from cefmp4.errors import ServerUnreachableError
from cefmp4.jobs import flow
from cefmp4.jobs.sources import surrealdb
from cefmp4.jobs.sources.asked import AskedJobs
from cefmp4.jobs.sources.feeder import Feeder, Reporter, feeding
from cefmp4.jobs.steps import Host, StepContext
from cefmp4.model.job import JobEnd, JobInput, JobKind, JobSpec, JobState
from cefmp4.ports.sources import JobSource
from cefmp4.storage.surreal.link import open_surreal

BUCKET, WAIT_S = "recordings", 20.0
MANY = 200
BACKENDS = [
    "memory_backend",
    pytest.param("redis_list_backend", marks=pytest.mark.integration),
    pytest.param("postgres_backend", marks=pytest.mark.integration),
    pytest.param("sqs_backend", marks=pytest.mark.integration),
    pytest.param("surreal_backend", marks=pytest.mark.integration),
    "embedded_surreal_backend",
]


@pytest.fixture
def memory_backend() -> Backend:
    return MemoryBackend()


@pytest_asyncio.fixture
async def redis_list_backend(
    redis_server: ValkeyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Backend]:
    """Of another package, as docs/add-a-backend.md says."""
    redis_list.install(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "redis_list", raising=False)
    monkeypatch.setenv("JOB_SOURCE_TYPE", "redis-list")
    monkeypatch.setenv("REDIS_LIST_URL", redis_server.url)
    settings, _ = load_settings(None)
    async with (
        Redis.from_url(redis_server.url, decode_responses=True) as redis,
        open_sources(settings) as one,
        open_sources(settings) as other,
    ):
        await redis.delete("jobs", "jobs:claimed", "jobs:since", "jobs:ended")
        yield redis_list.RedisListBackend(redis, [*one, *other])


@pytest_asyncio.fixture
async def postgres_backend(postgres_url: str) -> AsyncIterator[Backend]:
    async with jobs_in_postgres(postgres_url) as opened:
        yield opened


@pytest.fixture(autouse=True)
def looks_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surrealdb, "LOOK_AGAIN_S", 0.1)


@pytest_asyncio.fixture
async def surreal_backend() -> AsyncIterator[Backend]:
    """A server, with a connection for each poller."""
    async with serving_surreal() as server:
        config = config_of(server)
        async with open_surreal(config) as one, open_surreal(config) as other:
            yield SurrealBackend(sources_of(one, other), server.rows)


@pytest_asyncio.fixture
async def embedded_surreal_backend() -> AsyncIterator[Backend]:
    """The engine in this process."""
    async with open_surreal(embedded_config()) as one, open_surreal(embedded_config()) as other:

        async def rows(text: str, /, **variables: Any) -> Any:
            return (await one.query(text, **variables))[-1]

        yield SurrealBackend(sources_of(one, other), rows)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    found: Backend = request.getfixturevalue(request.param)
    return found


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "FIRST_PAUSE_S", 0.1)


@dataclass
class Works(Pretence):
    """Copies each object, but no key that begins with `bad`."""

    keys: list[str] = field(default_factory=list)

    async def make(self, context: StepContext) -> Any:
        key = context.spec.input.key
        self.keys.append(key)
        context.spec.params["copy"] = "1"
        if key.startswith("bad"):
            context.spec.params["bad"] = "no video in it"
        return await super().make(context)


@dataclass
class Plant:
    """An engine whose host tells the source of the ends of jobs."""

    backend: Backend
    works: Works
    desk: MemoryEngine

    def feeder(self, source: JobSource, desk: Any = None) -> Feeder:
        asked = AskedJobs(bucket=BUCKET, max_attempts=2)
        return Feeder(source=source, desk=desk or self.desk, asked=asked)

    def feeding(self, count: int = 1) -> Any:
        return feeding([self.feeder(source) for source in self.backend.pollers[:count]])

    async def in_state(self, ref: str, state: str) -> Seen:
        async def has_come() -> bool:
            return (await self.backend.seen(ref)).state == state

        await until(has_come)
        return await self.backend.seen(ref)


@pytest.fixture
async def plant(backend: Backend, tmp_path: Path) -> AsyncIterator[Plant]:
    works, source = Works(), backend.pollers[0]
    with pretending(tmp_path / "work", works) as plain:
        report = Reporter(source)
        host = Host(
            procedures=plain.procedures,
            slots=plain.slots,
            workplace=plain.workplace,
            reporters={source.name: report} if source.wants_reports else {},
        )
        desk = MemoryEngine(host)
        yield Plant(backend, works, desk)
        await desk.stop()


@pytest.fixture
def tells(plant: Plant) -> None:
    if not plant.backend.pollers[0].wants_reports:
        pytest.skip("it is told of no end")


async def test_what_is_asked_for_is_done_and_told(plant: Plant) -> None:
    ref = await plant.backend.put({"key": "a/b.mp4", "priority": 7})
    async with plant.feeding():
        await until(lambda: _is(plant.works.published))
        if plant.backend.pollers[0].wants_reports:
            seen = await plant.in_state(ref, "done")
            assert (seen.error, seen.attempts) == ("", 1)
            assert seen.result is not None
            assert "by" in seen.result
        else:
            await plant.in_state(ref, "gone")
    (job,) = await plant.desk.latest([JobState.COMPLETE], 10)
    assert job.spec.input.name == f"s3://{BUCKET}/a/b.mp4"
    assert job.spec.folder == "a"


async def test_a_job_that_fails_is_told_with_its_reason(plant: Plant, tells: None) -> None:
    ref = await plant.backend.put({"key": "bad.mp4"})
    async with plant.feeding():
        seen = await plant.in_state(ref, "failed")
    assert "no video in it" in seen.error
    assert seen.attempts == 1


async def test_what_is_no_job_is_refused_and_holds_nobody_up(plant: Plant) -> None:
    nonsense = await plant.backend.put_nonsense()
    ref = await plant.backend.put({"key": "a.mp4"})
    async with plant.feeding():
        await until(lambda: _is(plant.works.published))
        if plant.backend.pollers[0].wants_reports:
            await plant.in_state(ref, "done")
            assert (await plant.in_state(nonsense, "failed")).error
    assert plant.works.keys == ["a.mp4"]


async def test_many_with_two_pollers_are_done_once_each(plant: Plant) -> None:
    refs = [await plant.backend.put({"key": f"a/{number}.mp4"}) for number in range(MANY)]
    end = "done" if plant.backend.pollers[0].wants_reports else "gone"
    async with plant.feeding(2):
        for ref in refs:
            await plant.in_state(ref, end)

        async def all_are_published() -> bool:
            return len(plant.works.published) >= MANY

        await until(all_are_published)
    assert Counter(plant.works.keys) == Counter(f"a/{number}.mp4" for number in range(MANY))


async def test_what_a_poller_claimed_when_it_died_is_offered_again(plant: Plant) -> None:
    ref = await plant.backend.put({"key": "a.mp4"})
    one, other = plant.backend.pollers
    async with one.offers(10) as offers:
        assert [offer.ref for offer in offers if offer.jobs] or offers
    await plant.backend.pass_time()
    async with plant.feeding():
        await until(lambda: _is(plant.works.published))
        await plant.in_state(ref, "done" if other.wants_reports else "gone")
    assert plant.works.keys == ["a.mp4"]


async def test_one_that_the_engine_took_before_the_crash_runs_once(plant: Plant) -> None:
    """It was begun, and the source never heard that it was."""
    ref = await plant.backend.put({"key": "a.mp4"})
    begun = asyncio.Event()

    class Dies:
        async def submit(self, spec: JobSpec) -> bool:
            await plant.desk.submit(spec)
            begun.set()
            raise asyncio.CancelledError

    dying = asyncio.create_task(plant.feeder(plant.backend.pollers[0], Dies()).run())
    await asyncio.wait([dying], timeout=WAIT_S)
    assert begun.is_set()
    await plant.backend.pass_time()
    async with plant.feeding(2):
        end = "done" if plant.backend.pollers[0].wants_reports else "gone"
        await plant.in_state(ref, end)
    assert plant.works.keys == ["a.mp4"]


async def test_while_the_engine_is_away_nothing_is_lost(plant: Plant) -> None:
    ref = await plant.backend.put({"key": "a.mp4"})
    tries = 0

    class Away:
        async def submit(self, spec: JobSpec) -> bool:
            nonlocal tries
            tries += 1
            if tries < 3:
                raise ServerUnreachableError("Temporal does not answer")
            return await plant.desk.submit(spec)

        async def find(self, job_id: str) -> object:
            return await plant.desk.find(job_id)

    feeder = plant.feeder(plant.backend.pollers[0], Away())
    async with feeding([feeder]):

        async def has_begun() -> bool:
            await plant.backend.pass_time()
            return tries >= 3

        await until(has_begun)
        await plant.in_state(ref, "done" if feeder.source.wants_reports else "gone")

        async def trouble_is_over() -> bool:
            return feeder.figures.trouble == ""

        await until(trouble_is_over)
    assert tries >= 3
    assert plant.works.keys == ["a.mp4"]


async def test_a_job_that_is_put_back_runs_again(plant: Plant) -> None:
    if not plant.backend.pollers[0].repeats_mean_again:
        pytest.skip("a message is not put back")
    ref = await plant.backend.put({"key": "bad.mp4"})
    async with plant.feeding():
        await plant.in_state(ref, "failed")
        times = len(plant.works.keys)
        await plant.backend.put_back(ref)

        async def ran_again() -> bool:
            return len(plant.works.keys) > times

        await until(ran_again)
        await plant.in_state(ref, "failed")


async def test_the_same_end_told_twice_changes_nothing(plant: Plant, tells: None) -> None:
    ref = await plant.backend.put({"key": "a.mp4"})
    source = plant.backend.pollers[0]
    async with plant.feeding():
        once = await plant.in_state(ref, "done")
    (job,) = await plant.desk.latest([JobState.COMPLETE], 10)
    end = JobEnd(spec=job.spec, state=JobState.COMPLETE, attempts=1, result=job.result)
    await source.report(end)
    assert await plant.backend.seen(ref) == once


async def test_the_end_of_what_is_not_there_any_more_is_no_error(plant: Plant, tells: None) -> None:
    spec = JobSpec(subject="s", kind=JobKind.HLS, input=JobInput(key="k"), ref="987654321")
    await plant.backend.pollers[0].report(JobEnd(spec=spec, state=JobState.COMPLETE, attempts=1))


async def test_it_says_how_many_wait(plant: Plant) -> None:
    source = plant.backend.pollers[0]
    assert await source.waiting() == 0
    for number in range(3):
        await plant.backend.put({"key": f"{number}.mp4"})
    assert await source.waiting() == 3


async def test_what_comes_later_is_noticed(plant: Plant) -> None:
    async with plant.feeding():
        for number in range(3):
            await plant.backend.put({"key": f"{number}.mp4"})

            async def is_published(number: int = number) -> bool:
                return len(plant.works.published) > number

            await until(is_published)


async def _is(found: list[Any]) -> bool:
    return bool(found)
