"""Migrations on a real Postgres: once, however many start; all or nothing; never backwards."""

import asyncio

import pytest
from psycopg import sql
from tests.support.postgres_server import PostgresServer

from cefmp4.errors import AccessDeniedError, PermanentError, SettingsError
from cefmp4.storage.postgres.jobs_table import CHANNEL, has_table, make_jobs_table
from cefmp4.storage.postgres.link import Postgres, PostgresConfig, open_postgres
from cefmp4.storage.postgres.migrate import Migration, migrate, shipped, version_in
from cefmp4.storage.postgres.vectors import Vectors, has_vector, look_for_vectors

pytestmark = pytest.mark.integration


async def tables(postgres: Postgres) -> set[str]:
    rows = await postgres.fetch(
        "SELECT table_schema || '.' || table_name AS name FROM information_schema.tables "
        "WHERE table_schema IN ('cefmp4', 'public')"
    )
    return {row["name"] for row in rows}


async def test_makes_the_tables_of_results(postgres: Postgres) -> None:
    await migrate(postgres)
    assert await tables(postgres) == {
        "cefmp4.cefmp4_migrations",
        "cefmp4.recordings",
        "cefmp4.results",
        "cefmp4.hls_playlists",
        "cefmp4.hls_segments",
    }
    assert await version_in(postgres) == len(shipped())


async def test_ten_that_start_at_once_apply_each_once(postgres_url: str) -> None:
    async def start() -> None:
        async with open_postgres(PostgresConfig(url=postgres_url, pool_size=1)) as one:
            await migrate(one)
            await make_jobs_table(one)

    async with asyncio.TaskGroup() as group:
        for _ in range(10):
            group.create_task(start())
    async with open_postgres(PostgresConfig(url=postgres_url)) as postgres:
        rows = await postgres.fetch("SELECT version FROM cefmp4.cefmp4_migrations ORDER BY version")
        assert [row["version"] for row in rows] == [one.version for one in shipped()]
        assert await has_table(postgres, "jobs")


async def test_a_newer_database_is_refused_in_one_line(postgres: Postgres) -> None:
    await migrate(postgres)
    await postgres.execute("INSERT INTO cefmp4.cefmp4_migrations VALUES (99, 'of_tomorrow')")
    with pytest.raises(SettingsError, match=r"DATABASE_URL.*newer CefMP4 \(version 99") as raised:
        await migrate(postgres)
    assert "\n" not in str(raised.value)


async def test_a_broken_migration_leaves_nothing_and_can_be_mended(postgres: Postgres) -> None:
    good = shipped()
    version = len(good) + 1
    broken = Migration(
        version=version,
        name="broken",
        statements="CREATE TABLE cefmp4.half (id int); INSERT INTO cefmp4.nowhere VALUES (1);",
    )
    with pytest.raises(PermanentError, match=rf"migration {version} \(broken\) failed"):
        await migrate(postgres, [*good, broken])
    assert await version_in(postgres) == len(good)
    assert "cefmp4.half" not in await tables(postgres)
    mended = Migration(
        version=version, name="mended", statements="CREATE TABLE cefmp4.half (id int)"
    )
    await migrate(postgres, [*good, mended])
    assert "cefmp4.half" in await tables(postgres)


async def test_who_may_not_make_tables_is_told_so(postgres_server: PostgresServer) -> None:
    url = postgres_server.url(await postgres_server.new_database(owner="cefmp4"))
    async with open_postgres(PostgresConfig(url=url)) as postgres:
        with pytest.raises(AccessDeniedError, match="let the user in DATABASE_URL make tables"):
            await migrate(postgres)


async def test_a_schema_that_an_administrator_made_will_do(
    postgres_server: PostgresServer,
) -> None:
    database = await postgres_server.new_database(owner="cefmp4")
    await postgres_server.say("CREATE SCHEMA cefmp4 AUTHORIZATION recorder", database=database)
    async with open_postgres(PostgresConfig(url=postgres_server.url(database))) as postgres:
        await migrate(postgres)
        assert await version_in(postgres) == len(shipped())


async def test_where_nothing_is_missing_no_right_to_make_tables_is_needed(
    postgres_server: PostgresServer,
) -> None:
    database = await postgres_server.new_database(owner="cefmp4")
    await postgres_server.say("CREATE SCHEMA cefmp4 AUTHORIZATION recorder", database=database)
    async with open_postgres(PostgresConfig(url=postgres_server.url(database))) as postgres:
        await migrate(postgres)
        await postgres_server.say("REVOKE CREATE ON SCHEMA cefmp4 FROM recorder", database=database)
        await migrate(postgres)


async def test_the_table_of_jobs_tells_of_each_that_waits(postgres: Postgres) -> None:
    await migrate(postgres)
    assert await make_jobs_table(postgres, "jobs")
    assert not await make_jobs_table(postgres, "jobs")
    told: asyncio.Queue[str] = asyncio.Queue()

    async def listen() -> None:
        async for payload in postgres.listen(CHANNEL):
            told.put_nowait(payload)

    listening = asyncio.create_task(listen())
    try:
        async with asyncio.timeout(10):
            await told.get()  # it is connected
            await postgres.execute("INSERT INTO jobs (key) VALUES ('a.mp4'), ('b.mp4')")
            await told.get()
            await postgres.execute("UPDATE jobs SET status = 'processing', attempts = 1")
            await postgres.execute("UPDATE jobs SET status = 'pending' WHERE key = 'a.mp4'")
            await told.get()
            await postgres.execute("UPDATE jobs SET status = 'done'")
            await postgres.execute("INSERT INTO jobs (key) VALUES ('c.mp4')")
            await told.get()
        assert told.empty()
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


async def test_a_table_of_jobs_that_is_there_is_left_as_it_is(postgres: Postgres) -> None:
    await migrate(postgres)
    await postgres.execute("CREATE TABLE jobs (uuid text, s3_key text)")
    assert not await make_jobs_table(postgres, "jobs")
    rows = await postgres.fetch(
        "SELECT column_name AS name FROM information_schema.columns WHERE table_name = 'jobs'"
    )
    assert {row["name"] for row in rows} == {"uuid", "s3_key"}


@pytest.mark.parametrize("name", ['we"ird; DROP TABLE x', "Jobs", "äöü"])
async def test_a_table_of_jobs_may_have_any_name(postgres: Postgres, name: str) -> None:
    await migrate(postgres)
    assert await make_jobs_table(postgres, name)
    await postgres.execute(
        sql.SQL("INSERT INTO {} (key) VALUES ('a')").format(sql.Identifier(name))
    )
    assert await has_table(postgres, name)


async def test_a_table_of_jobs_in_a_schema_that_is_missing_names_the_setting(
    postgres: Postgres,
) -> None:
    await migrate(postgres)
    with pytest.raises(PermanentError, match=r"POSTGRES_JOBS_TABLE=nowhere\.jobs: it cannot"):
        await make_jobs_table(postgres, "nowhere.jobs")


@pytest.mark.parametrize("name", ["", "a.b.c", ".jobs", "x" * 64])
async def test_what_is_no_name_of_a_table_is_refused(postgres: Postgres, name: str) -> None:
    with pytest.raises(SettingsError, match="POSTGRES_JOBS_TABLE"):
        await make_jobs_table(postgres, name)


async def test_tells_whether_vectors_can_be_had(
    postgres: Postgres, postgres_server: PostgresServer
) -> None:
    """Only an administrator may add those of our server; as one, we run on the embedded one."""
    assert await look_for_vectors(postgres) is Vectors.FORBIDDEN
    assert not await has_vector(postgres)
    (row,) = await postgres.fetch("SELECT current_database() AS name")
    ours = PostgresConfig(url=postgres_server.own_url(row["name"]))
    async with open_postgres(ours) as administrator:
        assert await look_for_vectors(administrator) is Vectors.OFFERED
        await administrator.execute("CREATE EXTENSION vector")
    assert await look_for_vectors(postgres) is Vectors.INSTALLED
    assert await has_vector(postgres)
