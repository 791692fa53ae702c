"""A table of jobs on a real Postgres: none twice, nothing lost whoever dies, and any table that
people have already."""

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio
from tests.support.postgres_jobs import PostgresBackend, jobs_in_postgres
from tests.support.postgres_server import PostgresServer
from tests.support.pretence import until
from tests.support.source_backend import Seen

from cefmp4.errors import ServerUnreachableError, SettingsError, TransientError
from cefmp4.jobs.sources.asked import AskedJobs
from cefmp4.jobs.sources.feeder import Feeder, feeding
from cefmp4.jobs.sources.postgres import MOST_ASIDE, SET_ASIDE_S, STALE_LOOK_S, PostgresSource
from cefmp4.model.job import Job, JobEnd, JobInput, JobKind, JobSpec, JobState
from cefmp4.storage.postgres.job_rows import open_job_rows
from cefmp4.storage.postgres.link import Postgres, PostgresConfig, open_postgres

pytestmark = pytest.mark.integration

MANY = 1000  # in 2.4 s beside other work; `until` gives them 20
NEVER_S = 60.0  # a poll that no test waits for
SOON_S = 5.0


@dataclass
class Engine:
    """Takes jobs, and does nothing."""

    specs: list[JobSpec] = field(default_factory=list)
    known: dict[str, JobSpec] = field(default_factory=dict)
    away_after: int = 1_000_000

    async def submit(self, spec: JobSpec) -> bool:
        if len(self.specs) >= self.away_after:
            raise ServerUnreachableError("Temporal does not answer")
        self.specs.append(spec)
        return self.known.setdefault(spec.id, spec) is spec

    async def find(self, job_id: str) -> Job | None:
        spec = self.known.get(job_id)
        return Job(spec=spec, state=JobState.IN_PROGRESS) if spec else None

    @property
    def keys(self) -> list[str]:
        return [spec.input.key for spec in self.specs]


@pytest_asyncio.fixture
async def backend(postgres_url: str) -> AsyncIterator[PostgresBackend]:
    async with jobs_in_postgres(postgres_url, poll_s=NEVER_S) as opened:
        yield opened


def feeder(source: PostgresSource, engine: Any) -> Feeder:
    asked = AskedJobs(bucket="recordings", max_attempts=3)
    return Feeder(source=source, desk=engine, asked=asked)


async def in_state(backend: PostgresBackend, ref: str, state: str) -> Seen:
    async def has_come() -> bool:
        return (await backend.seen(ref)).state == state

    await until(has_come)
    return await backend.seen(ref)


async def claim(source: PostgresSource) -> list[str]:
    """What it is offered now, given back."""
    async with source.offers(100) as offers:
        return [offer.ref for offer in offers]


def end_of(spec: JobSpec, **changes: Any) -> JobEnd:
    return JobEnd(
        spec=spec, state=JobState.COMPLETE, attempts=1, result={"master_key": "m"}, **changes
    )


async def test_a_thousand_with_two_pollers_are_begun_once_each(backend: PostgresBackend) -> None:
    await backend.users.execute(
        "INSERT INTO jobs (key) SELECT n || '.mp4' FROM generate_series(1, %s) AS n", [MANY]
    )
    engine = Engine()

    async def none_waits() -> bool:
        return await backend.sources[0].waiting() == 0

    async with feeding([feeder(source, engine) for source in backend.sources]):
        await until(none_waits)
    assert Counter(engine.keys) == Counter(f"{n}.mp4" for n in range(1, MANY + 1))
    async with asyncio.TaskGroup() as group:
        for number, spec in enumerate(engine.specs):
            source = backend.sources[number % 2]
            group.create_task(source.report(end_of(spec)))
    rows = await backend.users.fetch("SELECT status, count(*) AS n FROM jobs GROUP BY 1")
    assert {row["status"]: row["n"] for row in rows} == {"done": MANY}


async def test_a_job_begins_as_soon_as_its_row_is_there(backend: PostgresBackend) -> None:
    """And not with the next poll."""
    engine = Engine()
    async with feeding([feeder(backend.sources[0], engine)]):
        await backend.put({"key": "first.mp4"})  # it listens from then on, at the latest
        await until(lambda: _has(engine, 1))
        waited = []
        for number in range(2, 12):
            began_at = time.monotonic()
            await backend.put({"key": f"{number}.mp4"})
            await until(lambda number=number: _has(engine, number))  # type: ignore[misc]
            waited.append(time.monotonic() - began_at)
    assert max(waited) < SOON_S


async def test_without_notifications_the_poll_finds_it(
    postgres_url: str, postgres: Postgres
) -> None:
    await postgres.execute(
        "CREATE TABLE work (id bigserial PRIMARY KEY, key text, status text DEFAULT 'pending')"
    )
    names = [f"{ours}=" for ours in OPTIONAL]
    engine = Engine()
    async with (
        jobs_in_postgres(postgres_url, table="work", names=names, poll_s=0.1) as backend,
        feeding([feeder(backend.sources[0], engine)]),
    ):
        for number in range(1, 4):
            ref = await backend.put({"key": f"{number}.mp4"})
            await in_state(backend, ref, "processing")
    assert len(engine.specs) == 3


OPTIONAL = ("bucket", "kind", "priority", "attempts", "error", "result", "job_id", "updated_at")

HOLDS_A_CLAIM = """
import asyncio, sys
from cefmp4.jobs.sources.postgres import PostgresSource
from cefmp4.storage.postgres.job_rows import open_job_rows
from cefmp4.storage.postgres.link import PostgresConfig, open_postgres

async def main():
    async with open_postgres(PostgresConfig(url=sys.argv[1])) as postgres:
        source = PostgresSource(
            postgres, await open_job_rows(postgres, table="jobs", names=()), poll_s=1
        )
        async with source.offers(10) as offers:
            await source.accept(offers[0], ["w-hls"])
            print(len(offers), flush=True)
            await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_what_a_killed_poller_had_claimed_is_free_at_once(
    backend: PostgresBackend, postgres_url: str
) -> None:
    refs = [await backend.put({"key": f"{number}.mp4"}) for number in range(3)]
    dying = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", HOLDS_A_CLAIM, postgres_url), stdout=asyncio.subprocess.PIPE
    )
    assert dying.stdout is not None
    async with asyncio.timeout(30):
        assert await dying.stdout.readline() == b"3\n"
    assert await claim(backend.sources[0]) == []
    os.kill(dying.pid, signal.SIGKILL)
    await dying.wait()
    began_at = time.monotonic()

    async def are_free() -> bool:
        return await claim(backend.sources[0]) == refs

    await until(are_free)
    assert time.monotonic() - began_at < SOON_S


async def test_what_was_begun_when_the_engine_went_away_stays_begun(
    backend: PostgresBackend,
) -> None:
    refs = [await backend.put({"key": f"{number}.mp4"}) for number in range(3)]
    source = backend.sources[0]
    engine = Engine(away_after=1)
    with pytest.raises(ServerUnreachableError):
        await feeder(source, engine)._take_some()
    assert (await backend.seen(refs[0])).state == "processing"
    assert await claim(source) == refs[1:]


async def test_higher_priorities_go_first_and_then_the_older(backend: PostgresBackend) -> None:
    refs = [await backend.put({"key": "a", "priority": one}) for one in (0, -5, 7, 0)]
    assert await claim(backend.sources[0]) == [refs[2], refs[0], refs[3], refs[1]]


# Rows that were begun, and of which nothing is heard.


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@pytest_asyncio.fixture
async def with_clock(backend: PostgresBackend) -> tuple[PostgresSource, Clock]:
    clock = Clock()
    rows = await open_job_rows(backend.users, table="jobs", names=())
    return PostgresSource(backend.users, rows, poll_s=NEVER_S, clock=clock), clock


async def test_what_was_begun_long_ago_is_offered_again(
    backend: PostgresBackend, with_clock: tuple[PostgresSource, Clock]
) -> None:
    """The engine has lost its data, or knows it: then it is only touched."""
    source, clock = with_clock
    ref = await backend.put({"key": "a.mp4"})
    engine = Engine()
    async with feeding([feeder(backend.sources[0], engine)]):
        await in_state(backend, ref, "processing")
    assert await claim(source) == []
    clock.now += STALE_LOOK_S
    assert await claim(source) == []
    await backend.users.execute("UPDATE jobs SET updated_at = now() - interval '11 minutes'")
    assert await claim(source) == []  # it has looked just now
    clock.now += STALE_LOOK_S
    assert await claim(source) == [ref]
    clock.now += STALE_LOOK_S
    async with source.offers(10) as offers:
        await source.accept(offers[0], [engine.specs[0].id])
    clock.now += STALE_LOOK_S
    assert await claim(source) == []


async def test_what_somebody_else_works_on_is_left_to_them(
    backend: PostgresBackend, with_clock: tuple[PostgresSource, Clock]
) -> None:
    source, _ = with_clock
    for job_id in (None, "another-system-17"):
        ref = await backend.put({"key": "a.mp4"})
        await backend.change(ref, status="processing", job_id=job_id)
    await backend.users.execute("UPDATE jobs SET updated_at = now() - interval '1 day'")
    assert await claim(source) == []


# Ends.


async def begun(backend: PostgresBackend) -> JobSpec:
    engine = Engine()
    ref = await backend.put({"key": "a.mp4"})
    async with feeding([feeder(backend.sources[0], engine)]):
        await in_state(backend, ref, "processing")
    return engine.specs[0]


async def test_the_end_of_a_former_job_of_a_row_is_not_told(backend: PostgresBackend) -> None:
    spec = await begun(backend)
    await backend.change(spec.ref, job_id="another")
    await backend.sources[0].report(end_of(spec))
    assert (await backend.seen(spec.ref)).state == "processing"


async def test_an_end_told_before_the_row_was_accepted_stands(backend: PostgresBackend) -> None:
    ref = await backend.put({"key": "a.mp4"})
    spec = feeder(backend.sources[0], Engine()).asked.spec({"key": "a.mp4"}, ref=ref)
    await backend.sources[0].report(end_of(spec))
    assert (await backend.seen(ref)).state == "done"
    assert await claim(backend.sources[0]) == []


async def test_what_an_error_says_is_stored_whatever_is_in_it(backend: PostgresBackend) -> None:
    spec = await begun(backend)
    error = "no such file: '\0\udcff'); DROP TABLE jobs; --"
    failed = JobEnd(spec=spec, state=JobState.FAILED, error=error, attempts=3)
    await backend.sources[0].report(failed)
    told = Seen("failed", "no such file: '\ufffd\ufffd'); DROP TABLE jobs; --", 3)
    assert await backend.seen(spec.ref) == told
    await backend.put_back(spec.ref)
    result = {"name": "\0\udcff", "seconds": float("nan")}
    await backend.sources[0].report(JobEnd(spec=spec, state=JobState.COMPLETE, result=result))
    assert (await backend.seen(spec.ref)).result == {"name": "\ufffd\ufffd", "seconds": None}


# Rows as nobody would wish them.

HOSTILE: dict[str, dict[str, Any]] = {
    "no key": {"key": ""},
    "a key of 10 MB": {"key": "k" * 10_000_000},
    "a key of 1,025 bytes": {"key": "\xe4" * 512 + "k"},
    "a bucket that is none": {"key": "a.mp4", "bucket": "'; DROP TABLE jobs; --"},
    "an unknown kind": {"key": "a.mp4", "kind": "mining"},
    "a kind of 10 MB": {"key": "a.mp4", "kind": "hls" * 3_000_000},
    "a priority that is none": {"key": "a.mp4", "priority": 2**31 - 1},
}


async def test_no_hostile_row_holds_up_another(backend: PostgresBackend) -> None:
    refs = [await backend.put(asked) for asked in HOSTILE.values()]
    fine = [
        {"key": "'); DROP TABLE jobs; --", "priority": -100},
        {"key": "../../etc/passwd\n\x1b[31m", "priority": -100},
    ]
    good = [await backend.put(asked) for asked in fine]
    engine = Engine()
    async with feeding([feeder(backend.sources[0], engine)]):
        for ref in good:
            await in_state(backend, ref, "processing")
        for ref in refs:
            assert (await in_state(backend, ref, "failed")).error
    assert engine.keys == [asked["key"] for asked in fine]


@pytest.mark.parametrize(
    "rule",
    [
        "RAISE EXCEPTION 'not this one'",
        "RETURN NULL",  # the change does not happen, and nobody is told
    ],
)
async def test_a_row_that_cannot_be_changed_is_set_aside(
    backend: PostgresBackend, with_clock: tuple[PostgresSource, Clock], rule: str
) -> None:
    source, clock = with_clock
    stuck = await backend.put({"key": "stuck.mp4", "priority": 9})
    await backend.users.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN IF OLD.key = 'stuck.mp4' THEN {rule}; END IF; RETURN NEW; END $$"
    )
    await backend.users.execute(
        "CREATE TRIGGER refuses BEFORE UPDATE ON jobs FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    ref = await backend.put({"key": "a.mp4"})
    engine = Engine()
    async with feeding([feeder(source, engine)]):
        await in_state(backend, ref, "processing")
    assert (await backend.seen(stuck)).state == "pending"
    assert engine.keys == ["stuck.mp4", "a.mp4"]
    assert await claim(source) == []
    clock.now += SET_ASIDE_S
    assert await claim(source) == [stuck]


async def test_a_table_that_takes_no_change_at_all_is_told(backend: PostgresBackend) -> None:
    """A rule of its own calls the states otherwise, say."""
    await backend.users.execute("ALTER TABLE jobs ADD CHECK (status <> 'processing')")
    for number in range(MOST_ASIDE + 1):
        await backend.put({"key": f"{number}.mp4"})
    one = feeder(backend.sources[0], Engine())
    async with feeding([one]):

        async def is_told() -> bool:
            return "no row of" in one.figures.trouble

        await until(is_told)
    assert "violates check constraint" in one.figures.trouble


# A server that dies.


@pytest_asyncio.fixture
async def mortal(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PostgresServer]:
    server = PostgresServer(tmp_path_factory.mktemp("mortal"))
    await server.start()
    yield server
    await server.stop()


async def test_a_server_that_is_killed_costs_no_job_and_doubles_none(
    mortal: PostgresServer,
) -> None:
    url = mortal.url(await mortal.new_database())
    async with jobs_in_postgres(url) as backend:
        refs = [await backend.put({"key": f"{number}.mp4"}) for number in range(30)]
        source, engine = backend.sources[0], Engine()

        @dataclass
        class Kills:
            """In the midst of a claim."""

            async def submit(self, spec: JobSpec) -> bool:
                is_new = await engine.submit(spec)
                if len(engine.specs) == 5:
                    mortal.kill()
                    await mortal.process.exited()
                return is_new

        with pytest.raises(TransientError):
            await feeder(source, Kills())._take_some()
        spec = engine.specs[0]
        with pytest.raises(ServerUnreachableError):
            await source.report(end_of(spec))
        await mortal.start()
        await source.report(end_of(spec))
        assert (await backend.seen(spec.ref)).state == "done"
        async with feeding([feeder(one, engine) for one in backend.sources]):
            for ref in refs[1:]:
                await in_state(backend, ref, "processing")
        assert len({spec.id for spec in engine.specs}) == len(refs)
        assert len(engine.specs) == len(refs) + 4  # those that were begun and not written down


async def test_it_listens_again_when_the_server_is_back(mortal: PostgresServer) -> None:
    url = mortal.url(await mortal.new_database())
    engine = Engine()
    async with (
        jobs_in_postgres(url, poll_s=NEVER_S) as backend,
        feeding([feeder(backend.sources[0], engine)]),
    ):
        await backend.put({"key": "1.mp4"})
        await until(lambda: _has(engine, 1))
        mortal.kill()
        await mortal.process.exited()
        await mortal.start()
        await backend.put({"key": "2.mp4"})
        await until(lambda: _has(engine, 2))


async def test_a_table_that_is_gone_for_a_while_is_waited_for(backend: PostgresBackend) -> None:
    engine = Engine()
    one = feeder(backend.sources[0], engine)
    await backend.users.execute("ALTER TABLE jobs RENAME TO saved")
    async with feeding([one]):

        async def is_told() -> bool:
            return "lacks a table" in one.figures.trouble

        await until(is_told)
        await backend.users.execute("ALTER TABLE saved RENAME TO jobs")
        ref = await backend.put({"key": "a.mp4"})
        await in_state(backend, ref, "processing")
        assert one.figures.trouble == ""


# Tables that people have.

IDS = {
    "bigint": "bigint GENERATED ALWAYS AS IDENTITY",
    "int": "integer GENERATED BY DEFAULT AS IDENTITY",
    "text": "text DEFAULT 'it''s: ' || random()",
    "char": "char(60) DEFAULT 'n' || random()",
    "uuid": "uuid DEFAULT gen_random_uuid()",
}
NAMES = (
    "id=Uid", "key=object_key", "bucket=", "kind=", "priority=weight", "status=stage",
    "attempts=tries", "error=note", "result=outcome", "job_id=cefmp4_job", "updated_at=touched",
    "pending=new", "processing=at it", "done=ready!", "failed=broken",
)  # fmt: skip


async def make_table(postgres: Postgres, id_type: str) -> None:
    for statement in (
        "CREATE TYPE stage AS ENUM ('new', 'at it', 'ready!', 'broken')",
        "CREATE DOMAIN weight AS smallint CHECK (VALUE < 50)",
        "CREATE SCHEMA theirs",
        f'CREATE TABLE theirs."WorkItems" ("Uid" {IDS[id_type]} PRIMARY KEY,'
        " object_key varchar(200) NOT NULL, stage stage NOT NULL DEFAULT 'new', tries smallint,"
        " note varchar(20) NOT NULL DEFAULT '', outcome json NOT NULL DEFAULT '{}',"
        " cefmp4_job varchar(64), touched timestamp, weight weight, owner text DEFAULT 'them')",
    ):
        await postgres.execute(statement.encode())


@pytest_asyncio.fixture(params=IDS)
async def theirs(
    request: pytest.FixtureRequest, postgres_url: str, postgres: Postgres
) -> AsyncIterator[PostgresBackend]:
    await make_table(postgres, request.param)
    async with jobs_in_postgres(
        postgres_url, table="theirs.WorkItems", names=NAMES, poll_s=0.1
    ) as opened:
        yield opened


async def test_a_table_of_theirs_is_served_under_its_own_names(theirs: PostgresBackend) -> None:
    good, bad = await theirs.put({"key": "a.mp4"}), await theirs.put({"key": ""})
    urgent = await theirs.put({"key": "b.mp4", "priority": 9})
    engine, source = Engine(), theirs.sources[0]
    async with feeding([feeder(source, engine)]):
        await in_state(theirs, good, "processing")
        failed = await in_state(theirs, bad, "failed")
    assert failed.error == "key must be the name"  # as much as their column takes
    assert engine.keys == ["b.mp4", "a.mp4"]
    first, second = engine.specs
    assert (first.ref, second.ref) == (urgent, good)
    await source.report(end_of(second))
    assert await theirs.seen(good) == Seen("done", "", 1, {"master_key": "m"})
    await source.report(JobEnd(spec=first, state=JobState.FAILED, error="x" * 99, attempts=3))
    assert await theirs.seen(urgent) == Seen("failed", "x" * 20, 3, {})
    rows = await theirs.users.fetch(
        "SELECT owner, abs(extract(epoch FROM now() AT TIME ZONE 'UTC' - touched)) < 60 AS utc,"
        " cefmp4_job FROM theirs.\"WorkItems\" WHERE object_key <> ''"
    )
    assert {(row["owner"], row["utc"]) for row in rows} == {("them", True)}
    assert {row["cefmp4_job"] for row in rows} == {first.id, second.id}


async def test_their_names_may_be_those_of_others(postgres_url: str, postgres: Postgres) -> None:
    """Ours stand for something else there, and words of SQL are names."""
    await postgres.execute(
        'CREATE TABLE "order" (ref int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "select" text,'
        ' kind int NOT NULL DEFAULT 0, "limit" text DEFAULT \'pending\', "user" text)'
    )
    names = [
        *("id=ref", "key=select", "priority=kind", "status=limit", "error=user"),
        *(f"{ours}=" for ours in ("bucket", "kind", "attempts", "result", "job_id", "updated_at")),
    ]
    async with jobs_in_postgres(postgres_url, table="order", names=names) as backend:
        refs = [await backend.put({"key": "a", "priority": n % 2}) for n in range(12)]
        assert await claim(backend.sources[0]) == refs[1::2] + refs[::2]
        await backend.put({"key": ""})
        engine = Engine()
        async with feeding([feeder(backend.sources[0], engine)]):
            assert (await in_state(backend, "13", "failed")).error
            for ref in refs:
                await in_state(backend, ref, "processing")


async def test_a_ref_that_is_no_id_of_the_table_is_no_error(theirs: PostgresBackend) -> None:
    for ref in ("", "17", "9" * 40, "-1", "x'; DROP TABLE jobs; --", "\0", "\udcff"):
        spec = JobSpec(subject="s", kind=JobKind.HLS, input=JobInput(key="k"), ref=ref)
        await theirs.sources[0].report(end_of(spec))


WRONG: dict[str, tuple[str, tuple[str, ...], str]] = {
    "no such table": ("nowhere", (), "POSTGRES_JOBS_TABLE=nowhere: there is no such table"),
    "no such schema": ("no.jobs", (), "POSTGRES_JOBS_TABLE=no.jobs: there is no such table"),
    "ours, under names of theirs": ("jobs", ("key=k",), "POSTGRES_JOBS_TABLE=jobs: there is no"),
    "an index": ("theirs.WorkItems_pkey", NAMES, "WorkItems_pkey: it is no table"),
    "names that are not said": (
        "theirs.WorkItems", (), "POSTGRES_JOBS_NAMES: the table WorkItems has no column id",
    ),
    "a column that is not there": (
        "theirs.WorkItems", (*NAMES, "priority=urgency"),
        "POSTGRES_JOBS_NAMES: the table WorkItems has no column urgency (say priority=its name "
        "there, or priority= where it has none)",
    ),
    "a column of another type": (
        "theirs.WorkItems", (*NAMES, "priority=owner"),
        "POSTGRES_JOBS_NAMES: the column owner of WorkItems is of the type text, and as priority "
        "it must be an integer",
    ),
    "a column too short for ids": (
        "theirs.WorkItems", (*NAMES, "job_id=note", "error="),
        "POSTGRES_JOBS_NAMES: the column note of WorkItems is of the type varchar, and as "
        "job_id it must be a text of 64 characters or more",
    ),
    "a state that is none": (
        "theirs.WorkItems", (*NAMES, "done=finished"),
        "POSTGRES_JOBS_NAMES: the column stage of WorkItems cannot be finished",
    ),
    "a column twice": ("jobs", ("error=key",), "POSTGRES_JOBS_NAMES: the column key is named"),
    "a state twice": ("jobs", ("done=pending",), "POSTGRES_JOBS_NAMES: the state pending is named"),
}  # fmt: skip


@pytest.mark.parametrize(("table", "names", "said"), WRONG.values(), ids=WRONG)
async def test_a_table_that_does_not_fit_is_told_in_one_line(
    postgres: Postgres, table: str, names: tuple[str, ...], said: str
) -> None:
    await make_table(postgres, "bigint")
    with pytest.raises(SettingsError) as raised:
        await open_job_rows(postgres, table=table, names=names)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


async def test_a_table_that_we_may_not_change_is_told_in_one_line(
    postgres_server: PostgresServer,
) -> None:
    database = await postgres_server.new_database(owner="cefmp4")
    for statement in ("CREATE TABLE jobs (id int, key text)", "GRANT SELECT ON jobs TO recorder"):
        await postgres_server.say(statement, database=database)
    async with open_postgres(PostgresConfig(url=postgres_server.url(database))) as postgres:
        with pytest.raises(SettingsError, match="may not read and change it"):
            await open_job_rows(postgres, table="jobs", names=())


async def _has(engine: Engine, count: int) -> bool:
    return len(engine.specs) >= count
