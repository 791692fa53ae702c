"""`cefmp4 doctor` on a real Postgres: whole, half allowed, and gone."""

import json
import os
import sys
from asyncio import create_subprocess_exec, subprocess
from pathlib import Path

import pytest
from tests.support.ports import free_port
from tests.support.postgres_server import PostgresServer

from cefmp4.commands.doctor import examine_database
from cefmp4.config.settings import Settings
from cefmp4.doctor.postgres import examine_postgres
from cefmp4.model.diagnosis import Diagnosis, Level
from cefmp4.storage.postgres.job_rows import open_job_rows
from cefmp4.storage.postgres.link import Postgres, PostgresConfig, open_postgres
from cefmp4.storage.postgres.migrate import migrate

pytestmark = pytest.mark.integration


async def examined(url: str, **settings: object) -> dict[str, Diagnosis]:
    found = await examine_postgres(Settings.model_validate({"database_url": url, **settings}))
    assert all(bool(one.advice) == (one.level is not Level.OK) for one in found)
    return {one.subject: one for one in found}


async def test_an_empty_database_that_will_do(postgres_url: str) -> None:
    found = await examined(postgres_url)
    assert found["Postgres"].detail.startswith("version 18.")
    assert found["Postgres role"].level is Level.OK
    assert "made at the next start" in found["Postgres tables"].detail
    assert found["Postgres connections"].level is Level.OK
    assert "CREATE EXTENSION vector" in found["Postgres vectors"].advice


async def test_one_that_is_in_use(postgres_server: PostgresServer) -> None:
    url = postgres_server.own_url(await postgres_server.new_database(owner="cefmp4"))
    async with open_postgres(PostgresConfig(url=url)) as postgres:
        await migrate(postgres)
    found = await examined(url)
    assert {one.level for one in found.values()} == {Level.OK}
    assert found["Postgres tables"].detail == "schema cefmp4, version 1"


async def test_one_of_somebody_else(postgres_server: PostgresServer) -> None:
    url = postgres_server.url(await postgres_server.new_database(owner="cefmp4"))
    found = await examined(url)
    assert found["Postgres tables"].level is Level.FAIL
    assert found["Postgres tables"].advice.startswith("CREATE SCHEMA cefmp4 AUTHORIZATION recorder")


async def test_one_with_few_connections(postgres_server: PostgresServer) -> None:
    database = await postgres_server.new_database()
    await postgres_server.say(f"ALTER DATABASE {database} CONNECTION LIMIT 2")
    found = await examined(postgres_server.url(database))
    assert found["Postgres connections"].level is Level.WARN
    assert f"the limit of database {database} is 2" in found["Postgres connections"].detail


async def test_one_that_is_not_there(postgres_server: PostgresServer) -> None:
    for url, is_setting in (
        (f"postgresql://me:hidden@127.0.0.1:{free_port()}/films", False),
        (postgres_server.url("nowhere"), True),
        (postgres_server.url("postgres", password="hidden"), True),
    ):
        (found,) = (await examined(url)).values()
        assert found.level is Level.FAIL
        assert found.is_setting is is_setting
        assert "hidden" not in found.detail + found.advice


async def test_the_command_looks_at_it_where_one_is_named(
    postgres_url: str, tmp_path: Path
) -> None:
    async def subjects(**settings: str) -> set[str]:
        asked = await create_subprocess_exec(
            *(sys.executable, "-m", "cefmp4", "doctor", "--json"),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=tmp_path,
            env={
                **os.environ,
                "HANDOVER_JOBS": "none",
                "S3_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}",
                "WATCH_DIR": str(tmp_path),
                **settings,
            },
        )
        output, _ = await asked.communicate()
        assert b"of-the-tests" not in output
        found = [json.loads(line)["subject"] for line in output.splitlines()]
        return {subject for subject in found if subject.startswith("Postgres")}

    assert await subjects(DATABASE_URL=postgres_url) == {
        "Postgres",
        "Postgres role",
        "Postgres tables",
        "Postgres connections",
        "Postgres vectors",
    }
    assert await subjects(DATABASE_URL="") == set()


async def test_the_table_of_jobs(postgres: Postgres, postgres_url: str) -> None:
    async def told(**settings: object) -> Diagnosis:
        found = await examined(postgres_url, job_source_type=("postgres",), **settings)
        return found["Postgres jobs"]

    assert "made at the next start" in (await told()).detail
    await postgres.execute("CREATE TABLE films (id int, key int, status text)")
    for table, names in (("films", ()), ("films", ("key=id",)), ("nowhere", ())):
        misfit = await told(postgres_jobs_table=table, postgres_jobs_names=names)
        assert misfit.level is Level.FAIL
        assert misfit.detail.startswith("POSTGRES_JOBS_")
    await open_job_rows(postgres, table="jobs", names=())
    await postgres.execute("INSERT INTO jobs (key) VALUES ('a'), ('b')")
    assert (await told()).detail.startswith("2 wait in test_")


async def test_an_address_that_is_missing_is_told_where_one_is_wanted() -> None:
    assert await examine_database(Settings.model_validate({})) == []
    settings = Settings.model_validate({"storage_type": "postgres"})
    (found,) = await examine_database(settings)
    assert (found.level, found.detail) == (Level.FAIL, "DATABASE_URL is not set")
