"""Jobs from SurrealDB beyond the contract: many rows with two pollers, pollers that die, a server
that goes away, rows of older systems and hostile ones, and files that have no HLS yet."""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from surrealdb import RecordID
from tests.support.pretence import until
from tests.support.surreal_backend import SurrealBackend, config_of, sources_of
from tests.support.surreal_server import DATABASE, NAMESPACE, SurrealServer, serving_surreal

from cefmp4.errors import ServerUnreachableError, TransientError
from cefmp4.jobs.sources import surrealdb
from cefmp4.jobs.sources.asked import AskedJobs
from cefmp4.jobs.sources.feeder import Feeder, feeding
from cefmp4.jobs.sources.surrealdb import SurrealSource
from cefmp4.model.job import Job, JobEnd, JobInput, JobKind, JobSpec, JobState
from cefmp4.ports.sources import JobSource, Offer
from cefmp4.storage.surreal.link import SurrealLink, open_surreal
from cefmp4.watch.selection import Selection

pytestmark = pytest.mark.integration

MANY = 1000
MOST_S = 100.0


@pytest.fixture(autouse=True)
def looks_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surrealdb, "LOOK_AGAIN_S", 0.0)
    monkeypatch.setattr(surrealdb, "QUEUE_EVERY_S", 0.0)


@pytest_asyncio.fixture
async def server() -> AsyncIterator[SurrealServer]:
    async with serving_surreal() as started:
        yield started


@pytest_asyncio.fixture
async def link(server: SurrealServer) -> AsyncIterator[SurrealLink]:
    async with open_surreal(config_of(server)) as opened:
        yield opened


@pytest.fixture
def source(link: SurrealLink) -> SurrealSource:
    return SurrealSource(link, poll_s=0.05)


@pytest.fixture
def backend(server: SurrealServer, source: SurrealSource) -> SurrealBackend:
    return SurrealBackend([source, source], server.rows)


class Notes:
    """An engine that takes everything and does nothing."""

    def __init__(self) -> None:
        self.submitted: list[JobSpec] = []

    async def submit(self, spec: JobSpec) -> bool:
        known = any(one.id == spec.id for one in self.submitted)
        self.submitted.append(spec)
        return not known

    async def find(self, job_id: str) -> Job | None:
        spec = next(one for one in self.submitted if one.id == job_id)
        return Job(spec=spec, state=JobState.IN_PROGRESS)

    @property
    def keys(self) -> list[str]:
        return [spec.input.key for spec in self.submitted]


def feeder_of(source: JobSource, desk: Any) -> Feeder:
    asked = AskedJobs(bucket="recordings", max_attempts=3)
    return Feeder(source=source, desk=desk, asked=asked)


def end_of(spec: JobSpec, state: JobState = JobState.COMPLETE, **changes: Any) -> JobEnd:
    return JobEnd(spec=spec, state=state, attempts=1, **changes)


async def begun(source: JobSource, desk: Notes) -> list[JobSpec]:
    """Which jobs one round begins."""
    before = len(desk.submitted)
    await feeder_of(source, desk)._take_some()
    return desk.submitted[before:]


async def refs_of(source: JobSource) -> list[str]:
    async with source.offers(10) as offers:
        return [offer.ref for offer in offers]


async def test_a_thousand_with_two_pollers_are_begun_once_each(server: SurrealServer) -> None:
    await server.rows(
        "INSERT INTO hls_job $rows RETURN NONE",
        rows=[{"status": "queued", "key": f"{n}.mp4", "created": n} for n in range(MANY)],
    )
    desk, config = Notes(), config_of(server)
    async with open_surreal(config) as one, open_surreal(config) as other:
        feeders = [feeder_of(source, desk) for source in sources_of(one, other)]
        began_at = time.monotonic()
        async with feeding(feeders), asyncio.timeout(MOST_S):
            while len(desk.submitted) < MANY:  # noqa: ASYNC110  # nobody tells
                await asyncio.sleep(0.05)
        seconds = time.monotonic() - began_at
    assert Counter(desk.keys) == Counter(f"{n}.mp4" for n in range(MANY))
    assert all(one.figures.begun > 0 for one in feeders)
    print(f"{MANY} rows with two pollers: {seconds:.1f} s")  # noqa: T201  # measured here


async def test_the_oldest_begins_first(backend: SurrealBackend, source: SurrealSource) -> None:
    for n in (3, 1, 2):
        await backend.rows(
            "CREATE hls_job SET status = 'queued', key = $key, created = <datetime>$day",
            key=f"{n}.mp4",
            day=f"2026-01-0{n}T00:00:00Z",
        )
    async with source.offers(2) as offers:
        assert [offer.jobs[0]["key"] for offer in offers] == ["1.mp4", "2.mp4"]


CLAIMS = """
import asyncio, sys
from cefmp4.jobs.sources.surrealdb import SurrealSource
from cefmp4.storage.surreal.link import SurrealConfig, open_surreal
from tests.support.surreal_server import DATABASE, NAMESPACE, PASSWORD, USER

async def main():
    config = SurrealConfig(
        endpoint=sys.argv[1], namespace=NAMESPACE, database=DATABASE, username=USER,
        password=PASSWORD, patience_s=20.0,
    )
    async with open_surreal(config) as link:
        async with SurrealSource(link, poll_s=1.0).offers(10) as offers:
            print(len(offers), flush=True)
            await asyncio.sleep(1000)

asyncio.run(main())
"""


async def test_what_a_killed_poller_had_claimed_is_offered_after_a_minute(
    backend: SurrealBackend, source: SurrealSource, server: SurrealServer
) -> None:
    ref = await backend.put({"key": "a.mp4"})
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", CLAIMS, server.address), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(60):
        assert await process.stdout.readline() == b"1\n"
    process.kill()
    await process.wait()
    assert (await backend.seen(ref)).state == "processing"
    assert await refs_of(source) == []
    await backend.pass_time()
    (spec,) = await begun(source, Notes())
    assert spec.ref == ref


async def test_what_an_older_worker_does_is_left_to_it(
    backend: SurrealBackend, source: SurrealSource
) -> None:
    ref = await backend.put({"key": "a.mp4"})
    await backend.rows("UPDATE (<record>$ref) SET status = 'in_progress'", ref=ref)
    await backend.pass_time()
    assert await refs_of(source) == []
    assert await source.waiting() == 0


async def test_one_of_whose_job_nothing_was_heard_is_looked_at_again(
    backend: SurrealBackend, source: SurrealSource
) -> None:
    """The engine may have forgotten the job; while it knows it, nothing changes."""
    ref = await backend.put({"key": "a.mp4"})
    desk = Notes()
    (spec,) = await begun(source, desk)
    for _ in range(4):  # of two minutes
        await backend.pass_time()
    assert await begun(source, desk) == []
    await backend.pass_time()
    assert await begun(source, desk) == [spec]
    assert (await backend.seen(ref)).state == "processing"
    await source.report(end_of(spec))
    for _ in range(6):
        await backend.pass_time()
    assert await begun(source, desk) == []


async def test_a_look_that_comes_to_nothing_puts_nothing_back(
    backend: SurrealBackend, source: SurrealSource
) -> None:
    ref = await backend.put({"key": "a.mp4"})
    await begun(source, Notes())
    for _ in range(6):
        await backend.pass_time()
    assert await refs_of(source) == [ref]
    assert (await backend.seen(ref)).state == "processing"


async def test_a_job_can_end_before_its_poller_says_that_it_began(
    backend: SurrealBackend, source: SurrealSource
) -> None:
    ref = await backend.put({"key": "a.mp4"})
    spec = JobSpec(subject="s", kind=JobKind.HLS, input=JobInput(key="a.mp4"), ref=ref)
    async with source.offers(10) as (offer,):
        await source.report(end_of(spec, result={"by": "me"}))
        await source.accept(offer, [spec.id])
    row = await backend.row(ref)
    assert (row["status"], row["result"]) == ("complete", {"by": "me"})


async def test_a_late_end_of_a_former_run_changes_nothing(
    backend: SurrealBackend, source: SurrealSource
) -> None:
    """Told twice, and in between the row was put back, and began anew."""
    ref = await backend.put({"key": "a.mp4"})
    desk = Notes()
    (spec,) = await begun(source, desk)
    former = end_of(spec, JobState.FAILED, error="broken")
    await source.report(former)
    await backend.put_back(ref)
    await source.report(former)
    assert (await backend.seen(ref)).state == "pending"
    async with source.offers(10) as (offer,):
        with pytest.raises(TransientError, match="begun again"):
            await source.report(end_of(spec))
        await source.accept(offer, [spec.id])
    assert (await backend.seen(ref)).state == "processing"
    await source.report(end_of(spec))
    await source.report(former)
    assert (await backend.seen(ref)).state == "done"
    assert "error" not in await backend.row(ref)


async def test_the_server_goes_away_and_comes_back(
    backend: SurrealBackend, source: SurrealSource, server: SurrealServer
) -> None:
    desk = Notes()
    feeder = feeder_of(source, desk)
    async with feeding([feeder]):
        await backend.put({"key": "a.mp4"})
        await until(lambda: _has(desk, 1))
        await server.stop()

        async def is_in_trouble() -> bool:
            return "out of reach" in feeder.figures.trouble

        await until(is_in_trouble)
        assert feeder.figures.waiting is None
        with pytest.raises(ServerUnreachableError):
            await source.report(end_of(desk.submitted[0]))
        await backend.put({"key": "b.mp4"})
        await server.start()
        await until(lambda: _has(desk, 2))
    await source.report(end_of(desk.submitted[0]))
    assert (await backend.seen(desk.submitted[0].ref)).state == "done"
    assert Counter(desk.keys) == Counter(["a.mp4", "b.mp4"])


async def _has(desk: Notes, count: int) -> bool:
    return len(desk.submitted) >= count


async def test_a_failure_is_spelled_as_existing_databases_do(
    backend: SurrealBackend, source: SurrealSource
) -> None:
    ref = await backend.put({"key": "a.mp4"})
    (spec,) = await begun(source, Notes())
    await source.report(end_of(spec, JobState.FAILED, error="no video in it"))
    row = await backend.row(ref)
    assert (row["status"], row["error"], row["attempts"]) == ("faild", "no video in it", 1)
    assert row["ended"] is not None


async def test_what_we_do_not_know_stays(backend: SurrealBackend, source: SurrealSource) -> None:
    ref = await backend.put({"key": "a.mp4", "owner": {"name": "Ada"}, "tags": ["x"]})
    (spec,) = await begun(source, Notes())
    await source.report(end_of(spec))
    row = await backend.row(ref)
    assert (row["owner"], row["tags"], row["note"]) == ({"name": "Ada"}, ["x"], "theirs")


async def test_a_row_names_its_object_or_is_linked_to_a_file(
    backend: SurrealBackend, source: SurrealSource
) -> None:
    await backend.rows("CREATE file:x SET bucket = 'films', key = 'linked.mp4'")
    await backend.rows("CREATE hls_job SET status = 'queued', file = file:x")
    await backend.rows("CREATE hls_job SET status = 'queued', key = 'own.mp4', bucket = 'mine'")
    await backend.rows("CREATE hls_job SET status = 'queued', key = 'both.mp4', file = file:x")
    found = {spec.input.name for spec in await begun(source, Notes())}
    assert found == {"s3://films/linked.mp4", "s3://mine/own.mp4", "s3://recordings/both.mp4"}


HOSTILE: dict[str, Any] = {
    "no key": {},
    "a dangling link": {"file": RecordID("file", "gone")},
    "a link of text": {"file": "file:x"},
    "a list of links": {"file": [RecordID("file", "x")]},
    "a number": {"key": 5},
    "an empty key": {"key": ""},
    "a huge key": {"key": "k" * 1_000_000},
    "a bucket with a path": {"key": "a.mp4", "bucket": "../../etc"},
    "an object for a bucket": {"key": "a.mp4", "bucket": {"a": 1}},
    "a priority of text": {"key": "a.mp4", "priority": "high"},
    "a priority beyond all": {"key": "a.mp4", "priority": 10**9},
    "a key that its engine cannot tell": {"key": "a\0b.mp4"},
    "not a number": {"key": float("nan")},
}


@pytest.mark.parametrize("row", HOSTILE.values(), ids=HOSTILE.keys())
async def test_a_hostile_row_is_refused_and_holds_nobody_up(
    server: SurrealServer, source: SurrealSource, row: dict[str, Any]
) -> None:
    desk = Notes()
    await server.put("hls_job", "bad", {"status": "queued", "created": 1, **row})
    await server.put("hls_job", "good", {"status": "queued", "created": 2, "key": "good.mp4"})
    await begun(source, desk)
    assert desk.keys == ["good.mp4"]
    (bad,) = await server.rows("SELECT status, error FROM hls_job:bad")
    assert bad["status"] == "faild"
    assert bad["error"]


async def test_keys_are_taken_as_they_are(server: SurrealServer, source: SurrealSource) -> None:
    keys = [
        "../../etc/passwd",
        "a'; DELETE hls_job; --.mp4",
        "`x` ⟩ $row",
        "é \n .mp4",
        "hls_job:1",
    ]
    for number, key in enumerate(keys):
        await server.put("hls_job", number, {"status": "queued", "key": key})
    desk = Notes()
    specs = await begun(source, desk)
    assert sorted(desk.keys) == sorted(keys)
    for spec in specs:
        await source.report(
            end_of(spec, JobState.FAILED, error="'; DELETE hls_job; --\0\ud800" + "x" * 10_000)
        )
    (count,) = await server.rows("SELECT count() FROM hls_job WHERE status = 'faild' GROUP ALL")
    assert count["count"] == len(keys)


@pytest.mark.parametrize(
    "row_id",
    [
        "",
        "a b",
        "⟩",
        "\\",
        "`",
        "';--",
        "a\nb",
        "12",
        -7,
        ["x", {"y": None}],
        {"z": [1]},
        "é" * 300,
    ],
    ids=repr,
)
async def test_odd_ids_lead_back_to_their_row(
    server: SurrealServer, source: SurrealSource, row_id: Any
) -> None:
    await server.put("hls_job", row_id, {"status": "queued", "key": "a.mp4"})
    (spec,) = await begun(source, Notes())
    await source.report(end_of(spec))
    (row,) = await server.rows("SELECT status FROM hls_job")
    assert row["status"] == "complete"


@pytest.mark.parametrize("row_id", ["x\0y", "k" * 5000], ids=["nul", "huge"])
async def test_an_id_that_nobody_can_keep_is_refused(
    server: SurrealServer, source: SurrealSource, row_id: str
) -> None:
    await server.put("hls_job", row_id, {"status": "queued", "key": "a.mp4"})
    desk = Notes()
    assert await begun(source, desk) == []
    (row,) = await server.rows("SELECT status, error FROM hls_job")
    assert row["status"] == "faild"


async def test_a_ref_of_another_table_reports_nothing(
    server: SurrealServer, source: SurrealSource
) -> None:
    await server.rows("CREATE user:1 SET name = 'Ada'")
    spec = JobSpec(subject="s", kind=JobKind.HLS, input=JobInput(key="k"), ref="user:1")
    await source.report(end_of(spec))
    (row,) = await server.rows("SELECT * FROM user:1")
    assert set(row) == {"id", "name"}


# Files without HLS.


@asynccontextmanager
async def queueing(link: SurrealLink) -> AsyncIterator[SurrealSource]:
    yield SurrealSource(link, poll_s=0.05, queued_files=Selection(("*.mp4",)))


async def test_files_without_hls_are_queued_once(
    server: SurrealServer, link: SurrealLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surrealdb, "PAGE", 4)
    for n in range(11):
        await server.put("file", n, {"bucket": "films", "key": f"{n}.mp4"})
    await server.rows("CREATE file:still SET bucket = 'films', key = 'still.jpg'")
    await server.rows("CREATE file:odd SET key = 5")
    await server.put("file", "nul", {"key": "\0.mp4"})
    await server.rows("UPDATE file:0 SET hls = true")
    await server.rows("CREATE hls_job SET status = 'faild', file = file:1, note = 'theirs'")
    await server.rows("CREATE hls_playlist SET file = file:2")
    desk = Notes()
    async with queueing(link) as one, queueing(link) as other:
        for _ in range(5):
            await asyncio.gather(begun(one, desk), begun(other, desk))
        assert sorted(desk.keys) == sorted(f"{n}.mp4" for n in range(3, 11))
        assert {spec.input.bucket for spec in desk.submitted} == {"films"}
        for spec in desk.submitted:
            await one.report(end_of(spec, JobState.FAILED, error="broken"))
        assert await begun(one, desk) == []


async def test_files_are_left_alone_unless_that_is_wanted(
    server: SurrealServer, source: SurrealSource
) -> None:
    await server.put("file", 1, {"bucket": "films", "key": "1.mp4"})
    assert await refs_of(source) == []


async def test_who_wants_it_back_after_a_minute_finds_it_dealt_with(
    backend: SurrealBackend, server: SurrealServer, link: SurrealLink
) -> None:
    """A poller that was frozen says what it did when another has long taken its row."""
    await backend.put({"key": "a.mp4"})
    frozen, other = sources_of(link, link)
    async with frozen.offers(10) as (offer,):
        await backend.pass_time()
        desk = Notes()
        (spec,) = await begun(other, desk)
        await frozen.refuse(offer, "nonsense")
        await frozen.accept(Offer(ref=offer.ref), ["another"])
    row = await backend.row(spec.ref)
    assert (row["status"], row["cefmp4_job"]) == ("in_progress", [spec.id])


async def test_its_place_is_the_same_by_any_address(source: SurrealSource) -> None:
    assert source.place == f"{NAMESPACE}/{DATABASE}/hls_job"
