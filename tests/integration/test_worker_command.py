"""`cefmp4 worker` as a process: what it tells of itself, and how it ends."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from tests.servers import S3Place

from cefmp4.embedded.state import free_port

pytestmark = pytest.mark.integration


async def start(
    folder: Path, s3: S3Place, redis_url: str, port: int
) -> tuple[asyncio.subprocess.Process, Path]:
    log = folder / f"{port}.log"
    environment = {
        **os.environ,
        **s3.environment,
        "S3_BUCKET_NAME": await s3.new_bucket(),
        "REDIS_URL": redis_url,
        "STATE_DIR": str(folder / "state"),
        "WORKER_PORT": str(port),
        "HLS_GPU": "off",
    }
    with log.open("ab") as out:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "cefmp4", "worker"), env=environment, stdout=out, stderr=out
        )
    return process, log


@asynccontextmanager
async def running(
    folder: Path, s3: S3Place, redis_url: str, port: int
) -> AsyncIterator[tuple[asyncio.subprocess.Process, Path]]:
    process, log = await start(folder, s3, redis_url, port)
    try:
        yield process, log
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def until_ready(port: int, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(60), aiohttp.ClientSession() as session:
        while process.returncode is None:
            try:
                async with session.get(f"http://127.0.0.1:{port}/readyz") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)
    raise AssertionError("the worker ended")


async def test_it_tells_of_itself_and_of_a_port_that_is_taken(
    tmp_path: Path, s3_server: S3Place, redis_url: str
) -> None:
    port = free_port()
    async with running(tmp_path, s3_server, redis_url, port) as (process, log):
        await until_ready(port, process)
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            async with session.get("/metrics") as response:
                text = await response.text()
            async with session.get("/livez") as response:
                assert response.status == 200
            async with session.get("/api/jobs") as response:
                assert response.status == 404
        assert "cefmp4_job_slots_in_use" in text
        async with running(tmp_path / ".", s3_server, redis_url, port) as (second, _):
            async with asyncio.timeout(60):
                assert await second.wait() == 2
        said = await asyncio.to_thread(log.read_text)
        assert f"error: WORKER_PORT={port}: another program listens there" in said
        assert "kinds=hls " in said
        assert "gpu=0 cpu=1" in said
        assert "HLS_GPU=off" in said
        assert "<" not in said.split("ready for jobs")[1].splitlines()[0]
        process.terminate()
        async with asyncio.timeout(30):
            assert await process.wait() == 0
