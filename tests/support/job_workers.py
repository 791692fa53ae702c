"""Worker processes whose jobs only pretend, to be killed, stopped and told to leave."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from cefmp4.jobs.queue import JobQueue, open_jobs
from cefmp4.model.job import Job, JobInput, JobKind, JobSpec


@pytest_asyncio.fixture
async def queue(redis_url: str) -> AsyncIterator[JobQueue]:
    async with open_jobs(redis_url, lease_seconds=2) as opened:
        yield opened


class Workers:
    """Starts worker processes and ends them by pid."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder / "work"
        self.log = folder / "worker.log"
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, **options: object) -> subprocess.Popen[bytes]:
        words = [f"{name}={value}" for name, value in options.items()]
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.job_worker", str(self.folder), *words],
                env={**os.environ, "REDIS_URL": self.url},
                stdout=log,
                stderr=log,
            )
        self.processes.append(process)
        return process

    def end(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()


@pytest.fixture
def workers(redis_url: str, tmp_path: Path) -> Iterator[Workers]:
    started = Workers(redis_url, tmp_path)
    yield started
    started.end()


async def until(condition: Callable[[], Awaitable[bool]], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.05)


def spec(name: str, *, kind: JobKind = JobKind.HLS, priority: int = 0, **params: str) -> JobSpec:
    return JobSpec(
        subject=name, kind=kind, input=JobInput(key=name), params=params, priority=priority
    )


def client(url: str) -> Redis:
    return Redis.from_url(url, decode_responses=True)


async def begun_by(redis: Redis, job_id: str) -> list[int]:
    begun = await redis.lrange(f"test:begun:{job_id}", 0, -1)
    return [int(str(entry).split(":")[0]) for entry in begun]


async def is_begun(redis: Redis, job_id: str, times: int = 1) -> bool:
    return len(await begun_by(redis, job_id)) >= times


async def ended(queue: JobQueue, job_id: str, seconds: float = 15) -> Job:
    async def is_final() -> bool:
        return (await queue.ledger.get(job_id)).is_final

    await until(is_final, seconds, f"end of {job_id}")
    return await queue.ledger.get(job_id)
