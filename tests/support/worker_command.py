"""`cefmp4 worker` as a process, on a Temporal and an S3 server of the tests."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from tests.support.job_worker import Workshop
from tests.support.servers import S3Place
from tests.support.temporal_server import CODEC_KEY


async def start(
    folder: Path, s3: S3Place, engine: Workshop, port: int, **changes: str
) -> tuple[asyncio.subprocess.Process, Path]:
    log = folder / f"{port}.log"
    environment = {
        **os.environ,
        **s3.environment,
        "S3_BUCKET_NAME": changes.get("S3_BUCKET_NAME") or await s3.new_bucket(),
        "REDIS_URL": "",  # nothing in it is of a worker's concern
        "TEMPORAL_ADDRESS": engine.address,
        "TEMPORAL_NAMESPACE": engine.namespace,
        "TEMPORAL_CODEC_KEY": CODEC_KEY.decode(),
        "STATE_DIR": str(folder / "state"),
        "WORKER_PORT": str(port),
        "WATCH_DIR": "/",  # files are submitted from anywhere
        "HLS_GPU": "off",
        **changes,
    }
    with log.open("ab") as out:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "cefmp4", "worker"), env=environment, stdout=out, stderr=out
        )
    return process, log


@asynccontextmanager
async def running(
    folder: Path, s3: S3Place, engine: Workshop, port: int, **changes: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, Path]]:
    process, log = await start(folder, s3, engine, port, **changes)
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
