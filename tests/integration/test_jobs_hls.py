"""HLS as a job, on a real store: two attempts never mix, and what is published plays."""

import asyncio
import json
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from awscrt.checksums import crc64nvme
from tests.support.servers import RedisPlace, SwiftServer

from cefmp4 import hls_job, metrics
from cefmp4.hls.encode import HlsOptions
from cefmp4.hls.encoders import EncoderChooser
from cefmp4.hls.make import HlsEncoder
from cefmp4.hls_job import HlsJobs
from cefmp4.jobs import attempt as attempts
from cefmp4.jobs.attempt import Attempt, JobContext, JobProcedure
from cefmp4.jobs.queue import JobQueue, open_jobs
from cefmp4.jobs.results import ObjectResults
from cefmp4.jobs.slots import Slots
from cefmp4.jobs.workplace import open_workplace
from cefmp4.model.job import (
    FailReason,
    Job,
    JobInput,
    JobKind,
    JobSpec,
    Lane,
    SlotKind,
    input_of_file,
)
from cefmp4.model.object import FileRange
from cefmp4.recording.file import SourceFile
from cefmp4.retry import Backoff
from cefmp4.storage.s3.store import S3Store, open_s3_store
from cefmp4.worker import JobRunner

pytestmark = pytest.mark.integration

SUBJECT = "20260101T000000Z-0badcafe"
JOB = f"{SUBJECT}-hls"


@pytest_asyncio.fixture
async def bucket(s3_server: SwiftServer) -> str:
    return await s3_server.new_bucket()


@pytest_asyncio.fixture
async def store(s3_server: SwiftServer, bucket: str) -> AsyncIterator[S3Store]:
    async with open_s3_store(s3_server.config(bucket)) as opened:
        yield opened


@pytest_asyncio.fixture
async def queue(redis_url: str) -> AsyncIterator[JobQueue]:
    async with open_jobs(redis_url, lease_seconds=5) as opened:
        yield opened


@pytest.fixture
def jobs(store: S3Store, bucket: str, queue: JobQueue) -> HlsJobs:
    chooser = EncoderChooser(program="ffmpeg")
    encoder = HlsEncoder(chooser=chooser, options=HlsOptions(has_thumbnails=False))
    results = ObjectResults(store, queue.ledger)
    return HlsJobs(store=store, bucket=bucket, encoder=encoder, results=results, watch_dir="/")


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MPEG-4 part 2, which must be encoded."""
    path = tmp_path_factory.mktemp("media") / "a.mp4"
    picture = ("-f", "lavfi", "-i", "testsrc2=s=320x180:r=25", "-t", "3", "-c:v", "mpeg4")
    subprocess.run(["ffmpeg", "-v", "error", "-nostdin", *picture, path], check=True, timeout=60)
    return path


def local(path: Path) -> JobInput:
    return input_of_file(str(path), path.stat())


def spec(source: JobInput) -> JobSpec:
    return JobSpec(subject=SUBJECT, kind=JobKind.HLS, input=source)


async def keys(store: S3Store) -> list[str]:
    prefix = f"hls/{SUBJECT}/"
    return sorted([one.key.removeprefix(prefix) async for one in store.list_objects(prefix)])


async def worked(
    queue: JobQueue, jobs: HlsJobs, folder: Path, *, procedure: JobProcedure | None = None
) -> Job:
    """What a worker makes of the only job."""
    stop = asyncio.Event()
    with open_workplace(folder) as workplace:
        runner = JobRunner(
            queue=queue,
            procedures={JobKind.HLS: procedure or jobs.procedure},
            slots=Slots({SlotKind.CPU: 1}),
            workplace=workplace,
            owner="one",
            is_dead=lambda _owner: False,
            backoff=Backoff(first_s=0.1, cap_s=0.2),
        )
        running = asyncio.create_task(runner.run(stop))
        try:
            deadline = time.monotonic() + 60
            while not (await queue.ledger.get(JOB)).is_final:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.1)
        finally:
            stop.set()
            await running
    return await queue.ledger.get(JOB)


def assert_only_of(fence: int, names: list[str]) -> None:
    published = {"master.m3u8", "result.json"}
    assert published <= set(names)
    assert all(f".a{fence}/" in name for name in names if name not in published), names


async def test_a_local_file_becomes_hls(
    queue: JobQueue, jobs: HlsJobs, store: S3Store, recording: Path, tmp_path: Path
) -> None:
    await queue.submit(spec(local(recording)))
    job = await worked(queue, jobs, tmp_path)
    assert job.is_complete, job.error
    assert (job.lane, job.slot, job.attempts) == (Lane.HLS_ENCODE, "cpu", 1)
    names = await keys(store)
    assert_only_of(job.accepted, names)
    master = (await store.read(f"hls/{SUBJECT}/master.m3u8")).decode()
    lists = [line for line in master.splitlines() if line and not line.startswith("#")]
    assert lists
    assert set(lists) <= set(names)
    rows = json.loads(await store.read(f"hls/{SUBJECT}/result.json"))["renditions"]
    assert {row["key"] for one in rows for row in one["segments"]} <= {
        f"hls/{SUBJECT}/{name}" for name in names
    }
    assert job.result is not None
    assert job.result["master_key"] == f"hls/{SUBJECT}/master.m3u8"


async def test_without_the_file_the_object_is_read(
    queue: JobQueue, jobs: HlsJobs, store: S3Store, bucket: str, recording: Path, tmp_path: Path
) -> None:
    key = "streams/a.mp4"
    etag = await upload(store, key, recording)
    source = JobInput(bucket=bucket, key=key, path="/nowhere/a.mp4", etag=etag)
    await queue.submit(spec(source))
    job = await worked(queue, jobs, tmp_path)
    assert job.is_complete, job.error
    assert_only_of(job.accepted, await keys(store))


async def upload(store: S3Store, key: str, path: Path) -> str:
    data = await asyncio.to_thread(path.read_bytes)
    fd = os.open(path, os.O_RDONLY)
    try:
        return await store.put_object(
            key,
            FileRange(fd, 0, len(data)),
            content_type="video/mp4",
            metadata={},
            crc64=crc64nvme(data),
        )
    finally:
        os.close(fd)


async def test_an_object_that_was_replaced_fails_at_once(
    queue: JobQueue, jobs: HlsJobs, store: S3Store, bucket: str, recording: Path, tmp_path: Path
) -> None:
    await upload(store, "streams/a.mp4", recording)
    await queue.submit(spec(JobInput(bucket=bucket, key="streams/a.mp4", etag="other")))
    job = await worked(queue, jobs, tmp_path)
    assert (job.reason, job.attempts) == (FailReason.ERROR, 1)
    assert await keys(store) == []


async def test_a_file_that_is_no_video_fails_at_once(
    queue: JobQueue, jobs: HlsJobs, store: S3Store, tmp_path: Path
) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"nothing")
    await queue.submit(spec(local(path)))
    job = await worked(queue, jobs, tmp_path / "work")
    assert (job.reason, job.attempts) == (FailReason.ERROR, 1)
    assert await keys(store) == []


async def test_a_worker_that_dies_before_publishing_is_followed_by_one_that_only_publishes(
    queue: JobQueue, jobs: HlsJobs, store: S3Store, recording: Path, tmp_path: Path
) -> None:
    await queue.submit(spec(local(recording)))
    first = await queue.ledger.begin(Lane.HLS_LOOK, owner="dead", slot="cpu", offered=JOB)
    assert first is not None
    outcome = await jobs.run(
        JobContext(
            job=first,
            slot=SlotKind.CPU,
            folder=tmp_path,
            report=lambda _progress: None,
            ended=asyncio.Event(),
        )
    )
    assert "master.m3u8" not in await keys(store)  # nobody sees it yet
    assert await queue.ledger.accept(JOB, first.fence, outcome.result)
    await queue.requeue(await queue.ledger.get(JOB), error="the worker died")
    job = await worked(queue, jobs, tmp_path / "work")
    assert job.is_complete
    assert job.accepted == first.fence != job.fence
    assert_only_of(first.fence, await keys(store))


async def test_the_zombie_of_a_complete_job_leaves_nothing(
    queue: JobQueue, jobs: HlsJobs, store: S3Store, recording: Path, tmp_path: Path
) -> None:
    """It wakes up after another attempt has published, and goes on to its own end."""
    await queue.submit(spec(local(recording)))
    zombie = await queue.ledger.begin(Lane.HLS_LOOK, owner="zombie", slot="cpu", offered=JOB)
    assert zombie is not None
    await queue.requeue(zombie, error="the worker seems dead")
    job = await worked(queue, jobs, tmp_path / "work")
    before = await keys(store)
    assert_only_of(job.accepted, before)
    with open_workplace(tmp_path / "zombie") as workplace:
        attempt = Attempt(
            zombie,
            SlotKind.CPU,
            queue=queue,
            procedure=jobs.procedure,
            workplace=workplace,
            heartbeat_s=60,  # it does not hear that it is fenced off until it has a result
        )
        assert await attempt.run() == "fenced"
    assert await keys(store) == before


async def test_a_job_waits_for_room_on_the_disk_without_losing_an_attempt(
    queue: JobQueue,
    jobs: HlsJobs,
    recording: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attempts, "NO_ROOM_S", 0.2)
    asked: list[str] = []

    def disk_bytes(job: Job) -> int:
        """Far too much, more often than a job may fail."""
        asked.append(job.error)
        return 1 << 60 if len(asked) <= job.spec.max_attempts + 2 else 0

    await queue.submit(spec(local(recording)))
    refused = metrics.job_results.labels("hls", "no_room")
    before = refused._value.get()
    procedure = replace(jobs.procedure, disk_bytes=disk_bytes)
    job = await worked(queue, jobs, tmp_path, procedure=procedure)
    assert job.is_complete, job.error
    assert job.attempts == 1
    assert len(job.fences) <= 2  # of the look and of the encode: waiting left no trace
    assert asked[0] == ""
    assert all(
        str(tmp_path) in reason and "STATE_DIR" in reason
        for reason in asked[1 : job.spec.max_attempts + 2]
    )
    assert refused._value.get() - before == job.spec.max_attempts + 2


@pytest.mark.parametrize("how", ["rewritten", "cut short"])
async def test_a_file_that_changes_under_the_encoder_is_not_what_is_published(
    queue: JobQueue,
    jobs: HlsJobs,
    store: S3Store,
    bucket: str,
    recording: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    path = tmp_path / "a.mp4"
    await asyncio.to_thread(shutil.copy, recording, path)
    etag = await upload(store, "streams/a.mp4", path)
    await queue.submit(spec(replace(local(path), bucket=bucket, key="streams/a.mp4", etag=etag)))

    opened, looks = hls_job._open_same, list[SourceFile | None]()

    def open_then_change(source: JobInput, watch_dir: str) -> SourceFile | None:
        found = opened(source, watch_dir)
        looks.append(found)
        if len(looks) == 2:  # the encode, after the look
            with path.open("r+b") as file:
                if how == "rewritten":
                    file.seek(size // 2)
                    file.write(bytes(size // 4))
                else:
                    file.truncate(size // 2)
        return found

    size = path.stat().st_size
    monkeypatch.setattr(hls_job, "_open_same", open_then_change)
    job = await worked(queue, jobs, tmp_path / "work")
    assert job.is_complete, job.error
    assert job.attempts == 2
    assert_only_of(job.accepted, await keys(store))
    assert job.result is not None
    assert job.result["warnings"] == 0


async def test_an_object_that_is_not_there_fails_at_once(
    queue: JobQueue, jobs: HlsJobs, bucket: str, tmp_path: Path
) -> None:
    await queue.submit(spec(JobInput(bucket=bucket, key="nothing.mp4")))
    job = await worked(queue, jobs, tmp_path)
    assert (job.reason, job.attempts) == (FailReason.ERROR, 1)
    assert "no such object" in job.error


# A ledger that was emptied has forgotten what the store still has.


def never_an_encoder() -> HlsEncoder:
    """One that would fail: no program is there."""
    program = "no-such-program"
    chooser = EncoderChooser(program=program)
    return HlsEncoder(chooser=chooser, options=HlsOptions(program=program))


async def stored(store: S3Store) -> dict[str, tuple[str, float]]:
    """Everything of the stream, with what changes when it is written again."""
    found = [one async for one in store.list_objects(f"hls/{SUBJECT}/")]
    return {one.key: (one.etag, one.modified_at) for one in found}


@pytest_asyncio.fixture
async def known(store: S3Store, bucket: str, recording: Path) -> JobSpec:
    """A job as the hand-over makes it: of an object that is proven."""
    etag = await upload(store, "streams/a.mp4", recording)
    return spec(replace(local(recording), bucket=bucket, key="streams/a.mp4", etag=etag))


async def test_after_redis_was_emptied_a_job_whose_result_is_there_ends_at_once(
    queue: JobQueue,
    jobs: HlsJobs,
    store: S3Store,
    redis_server: RedisPlace,
    known: JobSpec,
    tmp_path: Path,
) -> None:
    await queue.submit(known)
    first = await worked(queue, jobs, tmp_path)
    before = await stored(store)
    await redis_server.flush()
    await queue.submit(known)
    started = time.monotonic()
    again = await worked(queue, replace(jobs, encoder=never_an_encoder()), tmp_path)
    assert again.is_complete, again.error
    assert time.monotonic() - started < 10
    assert (again.lane, again.attempts) == (Lane.HLS_LOOK, 1)
    assert first.result is not None
    assert again.result == first.result | {"made_before": True}
    assert await stored(store) == before


async def test_a_worker_that_dies_before_it_says_so_is_followed_by_one_that_does(
    queue: JobQueue,
    jobs: HlsJobs,
    store: S3Store,
    redis_server: RedisPlace,
    known: JobSpec,
    tmp_path: Path,
) -> None:
    await queue.submit(known)
    await worked(queue, jobs, tmp_path)
    before = await stored(store)
    await redis_server.flush()
    await queue.submit(known)
    second = await queue.ledger.begin(Lane.HLS_LOOK, owner="dead", slot="", offered=JOB)
    assert second is not None
    outcome = await jobs.run(
        JobContext(
            job=second,
            slot=None,
            folder=tmp_path,
            report=lambda _progress: None,
            ended=asyncio.Event(),
        )
    )
    assert await queue.ledger.accept(JOB, second.fence, outcome.result)
    await queue.requeue(await queue.ledger.get(JOB), error="the worker died")
    assert (await worked(queue, jobs, tmp_path)).is_complete
    assert await stored(store) == before


@pytest.mark.parametrize("what", ["another object", "no etag", "no master", "a segment is gone"])
async def test_what_is_not_surely_the_result_is_made_again(
    queue: JobQueue,
    jobs: HlsJobs,
    store: S3Store,
    redis_server: RedisPlace,
    known: JobSpec,
    tmp_path: Path,
    what: str,
) -> None:
    await queue.submit(known)
    first = await worked(queue, jobs, tmp_path)
    await redis_server.flush()
    etag = {"another object": "other", "no etag": ""}.get(what, known.input.etag)
    if what == "no master":
        await store.delete(f"hls/{SUBJECT}/master.m3u8")
    elif what == "a segment is gone":
        await store.delete(next(key for key in await stored(store) if key.endswith(".m4s")))
    await queue.submit(replace(known, input=replace(known.input, etag=etag)))
    job = await worked(queue, jobs, tmp_path)
    assert job.is_complete, job.error
    assert job.accepted != first.accepted
    assert_only_of(job.accepted, await keys(store))
