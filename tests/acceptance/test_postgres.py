"""Postgres as people meet it: one that `cefmp4 up` brings along, and what one gets wrong with one's
own."""

from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from tests.support.ports import free_port
from tests.support.postgres_server import PostgresServer
from tests.support.pretence import until
from tests.support.servers import SwiftServer
from tests.support.terminal import cefmp4, up
from tests.writers.recording import Recording

from cefmp4.embedded.state import database_url
from cefmp4.storage.postgres.link import PostgresConfig, open_postgres
from cefmp4.storage.postgres.migrate import migrate

pytestmark = [
    pytest.mark.integration,
    pytest.mark.acceptance,
    pytest.mark.asyncio(loop_scope="session"),
]


WATCHED, STOP_S = "local_watch_dir", 15.0


class Database:
    """The one of a running `up`."""

    def __init__(self, state: Path) -> None:
        self._url = database_url(state)  # as this process can use it, however long its path is

    async def ask(self, query: Any, *values: Any) -> list[dict[str, Any]]:
        async with await psycopg.AsyncConnection.connect(
            self._url, autocommit=True, row_factory=dict_row
        ) as connection:
            return await (await connection.execute(query, values)).fetchall()

    async def order(self, key: str) -> int:
        (row,) = await self.ask("INSERT INTO jobs (key) VALUES (%s) RETURNING id", key)
        return int(row["id"])

    async def done(self, ref: int) -> dict[str, Any]:
        rows: list[dict[str, Any]] = []

        async def is_over() -> bool:
            rows[:] = await self.ask("SELECT * FROM jobs WHERE id = %s", ref)
            return rows[0]["status"] in ("done", "failed")

        await until(is_over)
        assert rows[0]["status"] == "done", rows[0]["error"]
        return rows[0]

    async def rows_of(self, master_key: str) -> tuple[int, int]:
        """How many playlists and segments there are of a job."""
        (row,) = await self.ask(
            "SELECT count(DISTINCT p.name) AS playlists, count(s.index) AS segments"
            " FROM cefmp4.hls_playlists m JOIN cefmp4.hls_playlists p ON p.subject = m.subject"
            " LEFT JOIN cefmp4.hls_segments s ON s.subject = p.subject AND s.playlist = p.name"
            " WHERE m.key = %s",
            master_key,
        )
        return row["playlists"], row["segments"]


async def test_up_brings_one_and_goes_on_with_it(tmp_path: Path) -> None:
    """A recording has its rows, and a row its job; after the next start, too, which does nothing
    again."""
    folder = tmp_path / "new"
    (folder / WATCHED).mkdir(parents=True)
    settings = {
        "JOB_SOURCE_TYPE": "internal,postgres",
        "STORAGE_TYPE": "postgres",
        "PROM_PORT": str(free_port()),
    }
    (folder / WATCHED / "first.mp4").write_bytes(
        Recording(tmp_path / "r.mp4", 1, 0, tmp_path).content
    )
    async with up(folder, **settings) as running:
        await running.says("/watch/")
        database = Database(folder / ".cefmp4")
        (recording,) = await database.ask("SELECT * FROM cefmp4.recordings")
        assert recording["path"] == str(folder / WATCHED / "first.mp4")
        row = await database.done(await database.order(recording["key"]))
        await check_result(database, row)
        assert await running.ctrl_c(STOP_S) == 0
    async with up(folder, **settings) as running:
        await running.says("ready for jobs")
        database = Database(folder / ".cefmp4")
        again = await database.done(await database.order(recording["key"]))
        await check_result(database, again)
        assert again["job_id"] != row["job_id"]
        assert await database.ask("SELECT * FROM jobs WHERE id = %s", row["id"]) == [row]
        (results,) = await database.ask("SELECT count(*) AS n FROM cefmp4.results")
        assert results["n"] == 3
        await check_taking_over(folder, database, recording["subject"])
        assert await running.ctrl_c(STOP_S) == 0
        assert "Traceback" not in running.said


async def check_taking_over(folder: Path, database: Database, subject: str) -> None:
    """What was made before there was a database comes into it, and is not made anew."""
    results = "SELECT attempt, accepted_at FROM cefmp4.results WHERE subject = %s"
    before = await database.ask(results, subject)
    for table in ("hls_segments", "hls_playlists", "results", "recordings"):
        assert await database.ask(f"DELETE FROM cefmp4.{table} RETURNING 1")
    told = await cefmp4(folder, "jobs", "backfill", "--with-made")
    assert "0 made, 1 submitted" in told.out, told.err

    async def is_back() -> bool:
        return await database.ask(results, subject) == before

    await until(is_back)


async def check_result(database: Database, row: dict[str, Any]) -> None:
    assert (row["attempts"], row["error"]) == (1, None)
    result = row["result"]
    rows, document = result["stored_in"]
    assert rows == f"postgresql:///cefmp4 cefmp4.results/{row['job_id']}"
    assert document.startswith("s3://cefmp4/hls/")
    playlists, segments = await database.rows_of(result["master_key"])
    assert (playlists, segments) == (1 + len(result["renditions"]), result["segments"])
    assert segments > 0


# What one gets wrong. The worker asks Postgres first, and needs no other server to say so.

WRONG: dict[str, tuple[dict[str, str], int, str]] = {
    "no address": ({"DATABASE_URL": ""}, 2, "DATABASE_URL is not set"),
    "no address, for results": (
        {"DATABASE_URL": "", "JOB_SOURCE_TYPE": "internal", "STORAGE_TYPE": "hybrid"},
        2,
        "DATABASE_URL is not set",
    ),
    "an address that is none": ({"DATABASE_URL": "mysql://u:hidden@db/x"}, 2, "DATABASE_URL"),
    "a wrong password": ({"DATABASE_URL": "{hidden}"}, 2, "DATABASE_URL"),
    "no such database": ({"DATABASE_URL": "{server}/nowhere"}, 2, "nowhere does not exist"),
    "out of reach": ({"DATABASE_URL": "postgresql://u:hidden@127.0.0.1:1/x"}, 3, "DATABASE_URL"),
    "no such table": ({"POSTGRES_JOBS_TABLE": "nowhere"}, 2, "POSTGRES_JOBS_TABLE=nowhere"),
    "no such column": ({"POSTGRES_JOBS_TABLE": "theirs"}, 2, "POSTGRES_JOBS_NAMES: the table"),
    "names that are none": ({"POSTGRES_JOBS_NAMES": "key"}, 2, "POSTGRES_JOBS_NAMES=key"),
}


@pytest.mark.parametrize("mistake", WRONG)
async def test_one_line_says_what_is_wrong(
    mistake: str, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    database = await postgres_server.new_database()
    await postgres_server.say("CREATE TABLE theirs (id int)", database=database)
    await postgres_server.say("GRANT ALL ON theirs TO recorder", database=database)
    places = {
        "{hidden}": postgres_server.url(database, password="hidden"),
        "{server}/nowhere": postgres_server.url("nowhere"),
    }
    changes, code, named = WRONG[mistake]
    settings = {
        "DATABASE_URL": postgres_server.url(database),
        "JOB_SOURCE_TYPE": "postgres",
        "TEMPORAL_ADDRESS": "127.0.0.1:1",
        "TEMPORAL_CODEC_KEY": "a key of this test",
        "STARTUP_TIMEOUT_SECONDS": "1",
        "WORKER_PORT": "0",
        "WATCH_DIR": str(tmp_path),
    }
    settings |= {name: places.get(value, value) for name, value in changes.items()}
    answer = await cefmp4(tmp_path, "worker", **settings)
    errors = [line for line in answer.lines if line.startswith("error: ")]
    assert (answer.code, len(errors)) == (code, 1), answer.err
    assert named in errors[0]
    assert "Traceback" not in answer.err
    assert "hidden" not in answer.err
    assert "of-the-tests" not in answer.err


async def test_results_name_the_setting_too(
    s3_server: SwiftServer, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    """A database that a newer CefMP4 has written to."""
    url = postgres_server.url(await postgres_server.new_database())
    async with open_postgres(PostgresConfig(url=url)) as postgres:
        await migrate(postgres)
        await postgres.execute("INSERT INTO cefmp4.cefmp4_migrations VALUES (99, 'of_tomorrow')")
    settings = {
        **s3_server.environment,
        "S3_BUCKET_NAME": await s3_server.new_bucket(),
        "STORAGE_TYPE": "postgres",
        "DATABASE_URL": url,
        "TEMPORAL_ADDRESS": "127.0.0.1:1",
        "TEMPORAL_CODEC_KEY": "a key of this test",
        "WORKER_PORT": "0",
        "WATCH_DIR": str(tmp_path),
    }
    answer = await cefmp4(tmp_path, "worker", **settings)
    errors = [line for line in answer.lines if line.startswith("error: ")]
    assert (answer.code, len(errors)) == (2, 1), answer.err
    assert "DATABASE_URL=***: its tables are of a newer CefMP4" in errors[0]
