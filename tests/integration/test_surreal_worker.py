"""`cefmp4 worker --sources` with SurrealDB on both sides: rows become HLS, whatever is killed
meanwhile; and what `doctor` and the settings say of it."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.support.hls_media import recording
from tests.support.job_worker import Workshop, until, workshop
from tests.support.ports import free_port
from tests.support.servers import S3Place
from tests.support.surreal_backend import SurrealBackend, config_of
from tests.support.surreal_results import read_result
from tests.support.surreal_server import (
    DATABASE,
    NAMESPACE,
    PASSWORD,
    USER,
    SurrealServer,
    serving_surreal,
)
from tests.support.temporal_server import CODEC_KEY

from cefmp4.config.settings import Settings
from cefmp4.doctor.surrealdb import examine_surrealdb
from cefmp4.model.diagnosis import Diagnosis, Level
from cefmp4.recording.digests import crc_of
from cefmp4.storage.s3.store import open_s3_store
from cefmp4.storage.surreal.link import open_surreal

__all__ = ["workshop"]

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

KEYS = ("a.mp4", "b/b.mp4", "c.mp4")


@pytest_asyncio.fixture
async def server() -> AsyncIterator[SurrealServer]:
    async with serving_surreal() as started:
        yield started


@pytest.fixture
def environment(
    tmp_path: Path, s3_server: S3Place, workshop: Workshop, server: SurrealServer
) -> dict[str, str]:
    return {
        **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
        **s3_server.environment,
        **{"TEMPORAL_ADDRESS": workshop.address, "TEMPORAL_NAMESPACE": workshop.namespace},
        "TEMPORAL_CODEC_KEY": CODEC_KEY.decode(),
        "STATE_DIR": str(tmp_path / "state"),
        "HLS_GPU": "off",
        "HANDOVER_JOBS": "none",
        "JOB_SOURCE_TYPE": "surrealdb",
        "STORAGE_TYPE": "surrealdb",
        "WORKER_POLL_MS": "100",
        "SURREAL_ENDPOINT": server.address.replace("ws://", "http://"),
        "SURREAL_USERNAME": USER,
        "SURREAL_PASSWORD": PASSWORD,
        "SURREAL_NAMESPACE": NAMESPACE,
        "SURREAL_DATABASE": DATABASE,
    }


@asynccontextmanager
async def worker(
    folder: Path, environment: dict[str, str], *arguments: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    port = str(free_port())
    with (folder / f"{port}.log").open("ab") as out:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "cefmp4", "worker", "--sources", *arguments),
            env=environment | {"WORKER_PORT": port},
            cwd=folder,
            stdout=out,
            stderr=out,
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def logged(folder: Path) -> str:
    return "".join(path.read_text() for path in folder.glob("*.log"))


async def put_recordings(s3: S3Place, bucket: str, path: Path) -> None:
    data = await asyncio.to_thread(path.read_bytes)
    async with open_s3_store(s3.config(bucket)) as store:
        for key in KEYS:
            await store.put_object(
                key, data, content_type="video/mp4", metadata={}, crc64=crc_of(data)
            )


async def states(server: SurrealServer) -> list[str]:
    found: list[str] = await server.rows("SELECT VALUE status FROM hls_job")
    return found


async def test_rows_become_hls_whatever_is_killed(
    tmp_path: Path, s3_server: S3Place, environment: dict[str, str], server: SurrealServer
) -> None:
    bucket = environment["S3_BUCKET_NAME"] = await s3_server.new_bucket()
    environment["SURREAL_QUEUE_FILES"] = "true"
    await put_recordings(s3_server, bucket, recording(tmp_path, seconds=3))
    await server.put("file", "one", {"bucket": bucket, "key": KEYS[0], "title": "One"})
    await server.put("hls_job", 1, {"status": "queued", "key": KEYS[1]})
    await server.put("hls_job", 2, {"status": "queued", "key": KEYS[2], "bucket": bucket})
    await server.put("hls_job", 3, {"status": "queued", "key": "not there.mp4"})

    async def has_begun() -> bool:
        return "in_progress" in await states(server)

    async def all_have_ended() -> bool:
        return set(await states(server)) == {"complete", "faild"}

    async with worker(tmp_path, environment) as first:
        await until(has_begun, 60, "a job that begins")
        first.kill()
        await server.stop()
        await first.wait()
    await server.start()
    backend = SurrealBackend([], server.rows)
    await backend.pass_time()
    async with worker(tmp_path, environment), worker(tmp_path, environment):
        await until(all_have_ended, 120, "the end of all rows")
    rows = await server.rows("SELECT * FROM hls_job")
    failed = [row for row in rows if row["status"] == "faild"]
    assert [row["key"] for row in failed] == ["not there.mp4"]
    assert "no such object" in failed[0]["error"]
    complete = [row for row in rows if row["status"] == "complete"]
    assert len(complete) == len(KEYS)
    async with open_surreal(config_of(server)) as link:
        for row in complete:
            where = next(
                one for one in row["result"]["stored_in"] if one.startswith("surrealdb://")
            )
            subject = where.rpartition("/")[2]
            kept = await read_result(link, subject)
            assert kept is not None
            assert kept["master_key"] == row["result"]["master_key"]
            count = sum(len(one["segments"]) for one in kept["renditions"])
            assert count == row["result"]["segments"] > 0
    files = await server.rows("SELECT title, hls, key FROM file ORDER BY key")
    assert files[0]["title"] == "One"
    assert all(file["hls"] for file in files)
    said = logged(tmp_path)
    assert PASSWORD not in said
    assert "Traceback" not in said


async def ended(folder: Path, environment: dict[str, str]) -> tuple[int | None, str]:
    async with worker(folder, environment) as process:
        async with asyncio.timeout(60):
            await process.wait()
        return process.returncode, logged(folder)


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"SURREAL_ENDPOINT": ""}, 2, "SURREAL_ENDPOINT is not set, and JOB_SOURCE_TYPE has surr"),
        ({"SURREAL_ENDPOINT": "postgres://x"}, 2, "SURREAL_ENDPOINT=***: it must start"),
        ({"SURREAL_PASSWORD": "wrong-" + PASSWORD}, 2, f"SURREAL_USERNAME={USER}"),
        ({"SURREAL_PASSWORD": ""}, 2, "SURREAL_USERNAME and SURREAL_PASSWORD go together"),
        ({"SURREAL_ENDPOINT": "ws://127.0.0.1:1"}, 3, "check SURREAL_ENDPOINT"),
    ],
    ids=["unset", "no address", "wrong password", "no password", "not there"],
)
async def test_what_is_wrong_is_one_line(
    tmp_path: Path, environment: dict[str, str], changes: dict[str, str], code: int, said: str
) -> None:
    given = environment | {"STARTUP_TIMEOUT_SECONDS": "1", "S3_BUCKET_NAME": "b-1"} | changes
    returned, log = await ended(tmp_path, given)
    assert (returned, said in log) == (code, True), log
    errors = [line for line in log.splitlines() if line.startswith("error")]
    assert len(errors) == 1
    assert PASSWORD not in log
    assert "Traceback" not in log


async def test_a_database_in_a_folder_has_one_worker(
    tmp_path: Path, s3_server: S3Place, environment: dict[str, str]
) -> None:
    environment["S3_BUCKET_NAME"] = await s3_server.new_bucket()
    environment["SURREAL_ENDPOINT"] = f"surrealkv://{tmp_path}/db"
    async with worker(tmp_path, environment) as first:

        async def is_ready() -> bool:
            return "ready for jobs" in logged(tmp_path)

        await until(is_ready, 60, "its start")
        returned, log = await ended(tmp_path, environment)
        assert returned == 2
        assert "another process has this database open" in log
        _, found = await doctor(tmp_path, environment)
        (said,) = [one for one in found if one["subject"] == "SurrealDB"]
        assert (said["level"], "another process" in said["detail"]) == ("ok", True)
        first.terminate()
        async with asyncio.timeout(60):
            assert await first.wait() == 0


async def doctor(folder: Path, environment: dict[str, str]) -> tuple[int | None, list[Any]]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cefmp4", "doctor", "--json"),
        env=environment,
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(100):
        out, _ = await process.communicate()
    return process.returncode, [json.loads(line) for line in out.splitlines()]


# doctor


def settings_of(server: SurrealServer, **changes: Any) -> Settings:
    return Settings.model_validate(
        {
            "job_source_type": "surrealdb",
            "surreal_endpoint": server.address,
            "surreal_username": USER,
            "surreal_password": PASSWORD,
            "surreal_namespace": NAMESPACE,
            "surreal_database": DATABASE,
            **changes,
        }
    )


async def examined(server: SurrealServer, **changes: Any) -> dict[str, Diagnosis]:
    return {one.subject: one for one in await examine_surrealdb(settings_of(server, **changes))}


async def test_doctor_finds_all_well_and_leaves_nothing(server: SurrealServer) -> None:
    for status in ("queued", "queued", "faild", "failed", "complete"):
        await server.rows("CREATE hls_job SET status = $status", status=status)
    found = await examined(server)
    assert {one.level for one in found.values()} == {Level.OK}
    assert found["SurrealDB jobs"].detail == "1 complete, 2 failed, 2 queued"
    (count,) = await server.rows("SELECT count() FROM hls_job GROUP ALL")
    assert count["count"] == 5
    assert not await server.rows("SELECT * FROM file, hls_playlist, hls_segment")


async def test_doctor_finds_a_schema_that_drops_our_fields(server: SurrealServer) -> None:
    await server.rows("DEFINE TABLE hls_job SCHEMAFULL")
    await server.rows("DEFINE FIELD status ON hls_job TYPE string")
    found = await examined(server)
    assert found["SurrealDB hls_job"].level is Level.FAIL
    assert "cefmp4_claim" in found["SurrealDB hls_job"].detail
    assert found["SurrealDB file"].level is Level.OK


async def test_doctor_finds_a_field_of_another_type(server: SurrealServer) -> None:
    await server.rows("DEFINE FIELD key ON file TYPE number")
    found = await examined(server)
    assert found["SurrealDB file"].level is Level.FAIL


async def test_doctor_finds_a_stranger_and_a_server_that_is_gone(server: SurrealServer) -> None:
    (said,) = (await examined(server, surreal_password="wrong")).values()
    assert (said.level, said.is_setting) == (Level.FAIL, True)
    await server.stop()
    (said,) = (await examined(server)).values()
    assert (said.level, said.is_setting) == (Level.FAIL, False)
    assert "out of reach" in said.detail


async def test_doctor_makes_no_database(tmp_path: Path, server: SurrealServer) -> None:
    (said,) = (await examined(server, surreal_endpoint=f"surrealkv://{tmp_path}/db")).values()
    assert said.level is Level.OK
    assert not os.listdir(tmp_path)
