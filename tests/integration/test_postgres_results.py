"""Rows of results on a real Postgres: what people query, all of a result at once, and the later of
two."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.hls_parts import AUDIO, VIDEO, track
from tests.support.postgres_server import PostgresServer
from tests.support.pretence import until

from cefmp4.errors import TablesMissingError, TransientError
from cefmp4.hls.result import HlsResult, StoredTrack, Tier, document
from cefmp4.model.job import JobInput, JobKind, job_id_of
from cefmp4.ports.results import JobResult
from cefmp4.results.postgres import PostgresResults
from cefmp4.storage.postgres.link import Postgres, PostgresConfig, open_postgres
from cefmp4.storage.postgres.migrate import migrate

pytestmark = pytest.mark.integration

SUBJECT = "20260101T000000Z-0badcafe"
SOURCE = JobInput(bucket="b", key="streams/a.mp4", size=7, etag="e")
MASTER = f"hls/{SUBJECT}/master.m3u8"
A_DAY, A_DAY_S = 24 * 3600 // 6, 15.0  # 1.5 to 2 s beside other work


@pytest_asyncio.fixture
async def results(postgres: Postgres) -> PostgresResults:
    await migrate(postgres)
    return PostgresResults(postgres)


def result_of(
    *tracks: StoredTrack, accepted_at: float = 1.0, subject: str = SUBJECT, **source: Any
) -> JobResult:
    """`source`: changes to what was read."""
    made = HlsResult(
        tier=Tier.COPY,
        tracks=tracks or (track((6.0, 900), (3.5, 500)),),
        stream_id=subject,
        bucket="b",
        master_key=MASTER,
        seconds=2.0,
    )
    return JobResult(
        job_id=job_id_of(subject, JobKind.HLS),
        kind=JobKind.HLS,
        subject=subject,
        source=replace(SOURCE, **source),
        attempt=f"a{accepted_at:g}",
        accepted_at=accepted_at,
        document=document(made),
    )


async def rows_of(postgres: Postgres, table: str) -> list[dict[str, Any]]:
    query = {
        "recordings": "SELECT * FROM cefmp4.recordings ORDER BY subject",
        "results": "SELECT * FROM cefmp4.results ORDER BY job_id",
        "hls_playlists": "SELECT * FROM cefmp4.hls_playlists ORDER BY subject, position",
        "hls_segments": "SELECT * FROM cefmp4.hls_segments ORDER BY subject, playlist, index",
    }[table]
    return [dict(row) for row in await postgres.fetch(query.encode())]


async def test_each_table_has_what_people_ask_it_for(
    results: PostgresResults, postgres: Postgres
) -> None:
    video = track((6.0, 900), (3.5, 500), encoder="libx265", hdr="HLG")
    sound = track((9.5, 100), name="audio-1", header=AUDIO, language="deu")
    place = await results.keep(result_of(video, sound, path="/watched/a.mp4"))
    assert place.startswith("postgresql://127.0.0.1:")
    assert place.endswith(f" cefmp4.results/{SUBJECT}-hls")
    assert "recorder" not in place
    (recording,) = await rows_of(postgres, "recordings")
    assert (recording["path"], recording["bucket"], recording["key"], recording["size"]) == (
        "/watched/a.mp4",
        "b",
        "streams/a.mp4",
        7,
    )
    assert (recording["etag"], recording["duration_seconds"]) == ("e", 9.5)
    master, first, second = await rows_of(postgres, "hls_playlists")
    assert (master["name"], master["role"], master["key"]) == ("master", "master", MASTER)
    assert (master["bytes"], master["duration_seconds"]) == (1500, 9.5)
    assert first == first | {
        "name": "hevc-720p",
        "role": "video",
        "key": f"hls/{SUBJECT}/hevc-720p.1/index.m3u8",
        "bandwidth": round(1400 * 8 / 9.5),
        "codecs": VIDEO.codec,
        "encoder": "libx265",
        "width": 1280,
        "height": 720,
        "fps": 30.0,
        "hdr": "HLG",
        "attempt": "a1",
    }
    assert (second["role"], second["language"], second["width"]) == ("audio", "deu", None)
    segments = await rows_of(postgres, "hls_segments")
    assert [(one["playlist"], one["index"]) for one in segments] == [
        ("audio-1", 0),
        ("hevc-720p", 0),
        ("hevc-720p", 1),
    ]
    assert segments[2] == segments[2] | {
        "key": "hls/s/hevc-720p/seg_00001.m4s",
        "bytes": 500,
        "start_seconds": 6.0,
        "duration_seconds": 3.5,
        "width": 1280,
        "codec": VIDEO.codec,
    }


async def test_the_document_and_the_rows_are_the_whole_result(
    results: PostgresResults, postgres: Postgres
) -> None:
    result = result_of()
    await results.keep(result)
    (kept,) = await rows_of(postgres, "results")
    (rendition,) = kept["document"]["renditions"]
    rendition["segments"] = [
        {
            "index": row["index"],
            "start": row["start_seconds"],
            "end": row["start_seconds"] + row["duration_seconds"],
            "bytes": row["bytes"],
            "key": row["key"],
            "bucket": row["bucket"],
            "size": f"{row['width']}x{row['height']}",
            "fps": row["fps"],
            "codec": row["codec"],
        }
        for row in await rows_of(postgres, "hls_segments")
    ]
    assert kept["document"] == result.document
    assert kept["accepted_at"].timestamp() == result.accepted_at


async def test_a_new_result_replaces_every_row_of_the_former(
    results: PostgresResults, postgres: Postgres
) -> None:
    await results.keep(result_of(track((6.0, 9), name="old"), track((6.0, 9), name="older")))
    await results.keep(result_of(track((2.0, 9), name="new"), accepted_at=2.0))
    playlists = await rows_of(postgres, "hls_playlists")
    assert [row["name"] for row in playlists] == ["master", "new"]
    assert [row["playlist"] for row in await rows_of(postgres, "hls_segments")] == ["new"]
    (kept,) = await rows_of(postgres, "results")
    assert (kept["attempt"], kept["document"]["renditions"][0]["name"]) == ("a2", "new")


async def test_of_many_at_once_the_one_accepted_last_stands(
    results: PostgresResults, postgres: Postgres
) -> None:
    attempts = [
        result_of(track(*[(6.0, number)] * 50, name=f"v{number}"), accepted_at=number)
        for number in (4, 1, 8, 3, 8, 2, 7, 6, 5)
    ]
    async with asyncio.TaskGroup() as group:
        for attempt in attempts:
            group.create_task(results.keep(attempt))
    (kept,) = await rows_of(postgres, "results")
    assert kept["attempt"] == "a8"
    assert [row["name"] for row in await rows_of(postgres, "hls_playlists")] == ["master", "v8"]
    assert [row["bytes"] for row in await rows_of(postgres, "hls_segments")] == [8] * 50


async def test_what_was_known_of_a_recording_is_not_forgotten(
    results: PostgresResults, postgres: Postgres
) -> None:
    """The next result may come of its object alone."""
    await results.keep(result_of(path="/watched/a.mp4"))
    await postgres.execute("UPDATE cefmp4.recordings SET sha256 = 'known'")
    await results.keep(result_of(size=0, etag="", accepted_at=2.0))
    (recording,) = await rows_of(postgres, "recordings")
    assert (recording["path"], recording["size"]) == ("/watched/a.mp4", 7)
    assert (recording["etag"], recording["sha256"]) == ("e", "known")


@pytest.mark.parametrize(
    ("path", "stored"),
    [
        ("/watched/\udcff\0.mp4", "/watched/\ufffd\ufffd.mp4"),
        ("/'; DROP TABLE cefmp4.results; --\n\t\\.", "/'; DROP TABLE cefmp4.results; --\n\t\\."),
        (f"/{''.join(map(chr, range(0x4E00, 0x4E00 + 1300)))}", None),  # 3.9 kB, all different
    ],
    ids=["no text", "SQL", "long"],
)
async def test_any_path_is_kept(
    results: PostgresResults, postgres: Postgres, path: str, stored: str | None
) -> None:
    key = path[:300]  # S3 takes no more than 1,024 bytes
    result = result_of(path=path, key=key)
    result.document["source"] = {"path": path, "size": float("inf")}
    await results.keep(result)
    (recording,) = await rows_of(postgres, "recordings")
    assert (recording["path"], recording["key"]) == (stored or path, stored or key)
    (kept,) = await rows_of(postgres, "results")
    assert kept["document"]["source"] == {"path": stored or path, "size": None}


async def test_a_result_of_another_shape_is_kept_as_its_document(
    results: PostgresResults, postgres: Postgres
) -> None:
    result = result_of()
    result.document.pop("renditions")
    await results.keep(result)
    (kept,) = await rows_of(postgres, "results")
    assert kept["document"] == result.document
    assert await rows_of(postgres, "hls_playlists") == []


async def test_a_day_is_kept_in_seconds(results: PostgresResults, postgres: Postgres) -> None:
    day = track(*[(6.0, 1_000_000)] * A_DAY)
    began_at = time.monotonic()
    await results.keep(result_of(day))
    assert time.monotonic() - began_at < A_DAY_S
    assert len(await rows_of(postgres, "hls_segments")) == A_DAY
    began_at = time.monotonic()
    await results.keep(result_of(day, accepted_at=2.0))  # another run: all rows anew
    assert time.monotonic() - began_at < A_DAY_S
    (kept,) = await rows_of(postgres, "results")
    assert kept["attempt"] == "a2"
    assert len(await rows_of(postgres, "hls_segments")) == A_DAY


async def test_tables_that_are_gone_are_no_fault_of_the_job(
    results: PostgresResults, postgres: Postgres
) -> None:
    """Somebody restores them: the job waits, and is not failed."""
    await postgres.execute("ALTER SCHEMA cefmp4 RENAME TO saved")
    with pytest.raises(TablesMissingError, match="lacks a table"):
        await results.keep(result_of())
    await postgres.execute("ALTER SCHEMA saved RENAME TO cefmp4")
    await results.keep(result_of())


async def test_so_is_a_database_that_is_gone(postgres_server: PostgresServer) -> None:
    database = await postgres_server.new_database()
    async with open_postgres(PostgresConfig(url=postgres_server.url(database))) as postgres:
        await migrate(postgres)
        await postgres_server.say(f'DROP DATABASE "{database}" WITH (FORCE)')
        with pytest.raises(TablesMissingError, match="does not exist"):
            await PostgresResults(postgres).keep(result_of())


@pytest_asyncio.fixture
async def mortal(tmp_path: Path) -> AsyncIterator[PostgresServer]:
    server = PostgresServer(tmp_path / "mortal")
    await server.start()
    yield server
    await server.stop()


async def kill_amid(keeping: Awaitable[str], mortal: PostgresServer, postgres: Postgres) -> None:
    """When it has written the result, and waits for the lock on its segments."""
    async with postgres.transaction() as connection:
        await connection.execute("LOCK cefmp4.hls_segments IN SHARE MODE")
        task = asyncio.ensure_future(keeping)

        async def waits() -> bool:
            return bool(await mortal.ask("SELECT 1 FROM pg_locks WHERE NOT granted"))

        await until(waits)
        mortal.kill()
        await mortal.process.exited()
        await task


async def test_a_server_that_is_killed_keeps_all_of_a_result_or_nothing(
    mortal: PostgresServer,
) -> None:
    database = await mortal.new_database()
    async with open_postgres(PostgresConfig(url=mortal.url(database), timeout_s=10)) as postgres:
        await migrate(postgres)
        results = PostgresResults(postgres)
        await results.keep(result_of(track((6.0, 1), name="old")))
        with pytest.raises(TransientError):
            await kill_amid(results.keep(result_of(accepted_at=2.0)), mortal, postgres)
        await mortal.start()
        (kept,) = await rows_of(postgres, "results")
        assert kept["attempt"] == "a1"
        assert [row["playlist"] for row in await rows_of(postgres, "hls_segments")] == ["old"]
        await results.keep(result_of(accepted_at=2.0))
        assert len(await rows_of(postgres, "hls_segments")) == 2
