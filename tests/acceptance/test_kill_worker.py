"""kill -9 of the worker in the middle of real encodes: every job is done once, its HLS is all
there, and nothing of a lost attempt is left. CEFMP4_KILLS says how often it is killed."""

import asyncio
import json
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from awscrt.checksums import crc64nvme
from tests.faults.s3_proxy import Exchange, Fault, Rule, S3Proxy
from tests.support.hls_media import AAC, PICTURE, SOUND, ffmpeg
from tests.support.hls_set import HlsSet
from tests.support.ports import free_port
from tests.support.servers import SwiftServer, ValkeyServer
from tests.support.service import Service, reached

from cefmp4.jobs.queue import JobQueue, open_jobs
from cefmp4.model.job import Job, JobInput, JobKind, JobSpec, input_of_file
from cefmp4.storage.s3.store import S3Config, S3Store, open_s3_store

pytestmark = [
    pytest.mark.integration,
    pytest.mark.acceptance,
    pytest.mark.faults,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(900),
]

KILLS = int(os.environ.get("CEFMP4_KILLS", "4"))
SEED = int(os.environ.get("CEFMP4_SEED", "30"))
SECONDS = 13  # three segments
READY = 3  # jobs that lost one attempt at most: the others back off, and keep nobody busy
MOMENT_S = 8.0  # a moment that does not come is not waited for any longer
PATIENCE_S = 120.0
CHILDREN_S = 5.0


@dataclass(frozen=True, slots=True)
class Moment:
    """What the worker is just asking the store for when it is killed."""

    name: str
    operation: str
    key_part: str
    most_skipped: int


MOMENTS = (
    Moment("a segment", "PutObject", ".m4s", 6),
    Moment("an init segment", "PutObject", "init.mp4", 4),
    Moment("a media playlist", "PutObject", "index.m3u8", 2),
    Moment("an image", "PutObject", "/images.", 2),
    Moment("the staged result", "PutObject", "/attempt.", 1),
    Moment("result or master", "PutObject", "master.m3u8", 3),
    Moment("publishing", "GetObject", "/attempt.", 1),
    Moment("clearing away", "DeleteObject", "hls/", 1),
)


@dataclass(slots=True)
class Measured:
    kills: Counter[str] = field(default_factory=Counter)
    children_s: list[float] = field(default_factory=list)
    jobs: int = 0
    attempts: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        when = ", ".join(f"{name} {count}" for name, count in sorted(self.kills.items()))
        return (
            f"{self.kills.total()} kills ({when}) in {self.seconds:.0f} s; {self.jobs} jobs in "
            f"{self.attempts} attempts; the last child ended within {max(self.children_s):.2f} s"
        )


@dataclass(slots=True)
class Yard:
    """One worker, its servers, and the recordings it is given."""

    folder: Path
    worker: Service
    queue: JobQueue
    store: S3Store
    s3: S3Proxy
    recordings: list[JobInput]
    mark: str
    submitted: list[str] = field(default_factory=list)

    async def jobs(self) -> list[Job]:
        return [await self.queue.ledger.get(job_id) for job_id in self.submitted]

    async def fill(self) -> None:
        ready = sum(not job.is_final and job.attempts <= 1 for job in await self.jobs())
        for _ in range(READY - ready):
            number = len(self.submitted)
            source = self.recordings[number % len(self.recordings)]
            spec = JobSpec(
                subject=f"s{number:03}", kind=JobKind.HLS, input=source, max_attempts=1000
            )
            assert await self.queue.submit(spec)
            self.submitted.append(spec.id)

    def children(self) -> list[int]:
        """Whatever was started by a worker of ours, living or dead: the search path tells."""
        found = []
        for process in psutil.process_iter():
            try:
                is_ours = process.environ().get("PATH", "").endswith(self.mark)
            except psutil.Error:
                continue
            if is_ours and process.pid != self.worker.pid:
                found.append(process.pid)
        return found


@asynccontextmanager
async def open_yard(s3_server: SwiftServer, folder: Path) -> AsyncIterator[Yard]:
    valkey, s3 = ValkeyServer(folder / "valkey"), S3Proxy(s3_server.port)
    bucket = await s3_server.new_bucket()
    await valkey.start()
    await s3.start()
    port, mark = str(free_port()), f":{folder}/mark"
    settings = {
        **s3_server.environment,
        "S3_ENDPOINT_URL": f"http://127.0.0.1:{s3.port}",
        "S3_BUCKET_NAME": bucket,
        "REDIS_URL": valkey.url,
        "STATE_DIR": str(folder / "state"),
        "WATCH_DIR": str(folder),
        "APP_ENV": "production",
        "PROM_PORT": port,
        "WORKER_PORT": port,
        "HLS_GPU": "off",
        "CPU_SLOTS": "2",
        "PATH": os.environ["PATH"] + mark,
    }
    worker = Service("worker", settings, folder, command=("cefmp4", "worker"))
    config = S3Config(
        bucket=bucket,
        endpoint_url=s3_server.endpoint_url,
        access_key=s3_server.access_key,
        secret=s3_server.secret_key,
    )
    try:
        async with open_jobs(valkey.url, lease_seconds=10) as queue, open_s3_store(config) as store:
            recordings = await _recordings(folder, store, bucket)
            yield Yard(folder, worker, queue, store, s3, recordings, mark)
    finally:
        await worker.kill()
        await s3.stop()
        await valkey.stop()


async def _recordings(folder: Path, store: S3Store, bucket: str) -> list[JobInput]:
    """Two that must be encoded, one of them from the store, and one that is copied."""
    encoded, copied = folder / "encoded.mp4", folder / "copied.mp4"
    length = ("-t", str(SECONDS))
    await asyncio.to_thread(ffmpeg, *PICTURE, *SOUND, *length, "-c:v", "mpeg4", *AAC, encoded)
    h264 = ("-c:v", "libx264", "-preset", "ultrafast", "-g", "60")
    await asyncio.to_thread(ffmpeg, *PICTURE, *SOUND, *length, *h264, *AAC, copied)
    return [_local(encoded), await _stored(store, bucket, encoded), _local(copied)]


def _local(path: Path) -> JobInput:
    return input_of_file(str(path), path.stat())


async def _stored(store: S3Store, bucket: str, path: Path) -> JobInput:
    key = f"streams/{path.name}"
    data = await asyncio.to_thread(path.read_bytes)
    etag = await store.put_object(
        key, data, content_type="video/mp4", metadata={}, crc64=crc64nvme(data)
    )
    return JobInput(bucket=bucket, key=key, etag=etag)


def killing(worker: Service, chance: random.Random) -> Fault:
    """Before the store hears of the request, or before the worker hears of the answer."""

    async def kill(exchange: Exchange) -> bool:
        if chance.random() < 0.5:
            await exchange.fetch()
        await worker.kill()
        return exchange.reset()

    return kill


async def kill_at_some_moment(yard: Yard, chance: random.Random) -> str:
    if chance.random() < 0.3:
        await asyncio.sleep(chance.uniform(0.0, 4.0))
        await yard.worker.kill()
        return "at any moment"
    moment = chance.choice(MOMENTS)
    rule = Rule(
        fault=killing(yard.worker, chance),
        operation=moment.operation,
        key_part=moment.key_part,
        skip=chance.randint(0, moment.most_skipped),
    )
    yard.s3.rules.append(rule)
    came = await reached(_ended(yard.worker), MOMENT_S)
    yard.s3.rules.remove(rule)
    await yard.worker.kill()
    return moment.name if came else "at any moment"


def _ended(worker: Service) -> Callable[[], Awaitable[bool]]:
    async def has_ended() -> bool:
        return not worker.is_running

    return has_ended


async def until_childless(yard: Yard) -> float:
    """ffmpeg dies with its worker."""
    started = time.monotonic()

    async def is_childless() -> bool:
        return not yard.children()

    assert await reached(is_childless, CHILDREN_S), yard.children()
    return time.monotonic() - started


async def test_killed_again_and_again_while_it_encodes(
    s3_server: SwiftServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chance, measured, started = random.Random(SEED), Measured(), time.monotonic()
    async with open_yard(s3_server, tmp_path) as yard:
        for _ in range(KILLS):
            await yard.fill()
            await yard.worker.start()
            measured.kills[await kill_at_some_moment(yard, chance)] += 1
            measured.children_s.append(await until_childless(yard))
        await yard.worker.start()
        assert await reached(all_final(yard), PATIENCE_S), await yard.jobs()
        for job in await yard.jobs():
            await check_done_once(yard, job)
        assert await yard.worker.stop() == 0
        await until_childless(yard)
        assert list((tmp_path / "state" / "work").iterdir()) == []
        jobs = await yard.jobs()
    measured.jobs, measured.attempts = len(jobs), sum(len(job.fences) for job in jobs)
    measured.seconds = time.monotonic() - started
    with capsys.disabled():
        print(f"\n{measured}")  # noqa: T201


def all_final(yard: Yard) -> Callable[[], Awaitable[bool]]:
    async def are_all_final() -> bool:
        return all([job.is_final for job in await yard.jobs()])

    return are_all_final


async def check_done_once(yard: Yard, job: Job) -> None:
    assert job.is_complete, f"{job}: {job.error}"
    assert job.accepted in job.fences
    assert 1 <= job.attempts <= KILLS + 1
    assert reported_complete(yard.worker.log)[job.id] <= 1
    hls = await HlsSet.read(yard.store, job.spec.subject)
    assert hls.attempt == f"a{job.accepted}"
    assert hls.missing() == set(), f"{job}: named, but not there"
    assert hls.unnamed() == set(), f"{job}: there, but named by nothing"
    assert hls.differing() == [], f"{job}: rows that do not tell what is stored"
    assert job.result is not None
    assert job.result["segments"] == len(hls.rows)


def reported_complete(log: Path) -> Counter[str]:
    """By job: how often a worker said that it completed it. Killed at once it does not say so."""
    found: Counter[str] = Counter()
    for line in log.read_text(errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if record.get("event") == "job ended" and record.get("outcome") == "complete":
            found[record["job_id"]] += 1
    return found
