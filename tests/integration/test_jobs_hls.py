"""HLS as a job, on a real engine and a real store: two attempts never mix, and what is published
plays."""

import asyncio
import json
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from awscrt.checksums import crc64nvme
from tests.faults.redis_proxy import RedisProxy
from tests.support.job_worker import Workshop, new_workshop, until, workshop
from tests.support.servers import SwiftServer
from tests.support.temporal_server import TemporalServer

from cefmp4 import hls_job
from cefmp4.errors import ServerUnreachableError
from cefmp4.hls.encode import HlsOptions
from cefmp4.hls.encoders import EncoderChooser
from cefmp4.hls.make import HlsEncoder
from cefmp4.hls_job import HlsJobs
from cefmp4.jobs.flow import Order
from cefmp4.jobs.slots import Slots
from cefmp4.jobs.steps import Accepted, Host, JobProcedure, Made, StepContext
from cefmp4.jobs.workplace import open_workplace
from cefmp4.model.job import (
    FailReason,
    Job,
    JobInput,
    JobKind,
    JobSpec,
    SlotKind,
    Step,
    input_of_file,
)
from cefmp4.model.object import FileRange
from cefmp4.recording.file import SourceFile
from cefmp4.results.objects import ObjectResults
from cefmp4.storage.s3.store import S3Store, open_s3_store

__all__ = ["workshop"]

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


@pytest.fixture
def jobs(store: S3Store, bucket: str) -> HlsJobs:
    chooser = EncoderChooser(program="ffmpeg")
    encoder = HlsEncoder(chooser=chooser, options=HlsOptions(has_thumbnails=False))
    results = (ObjectResults(store, bucket=bucket),)
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


async def worked(workshop: Workshop, jobs: HlsJobs | JobProcedure, spec: JobSpec) -> Job:
    """What a worker makes of the only job."""
    procedure = jobs.procedure if isinstance(jobs, HlsJobs) else jobs
    assert await workshop.desk.submit(spec)
    async with workshop.worker(procedure):
        return await workshop.ended(spec.id)


def assert_only_of(attempt: str, names: list[str]) -> None:
    published = {"master.m3u8", "result.json"}
    assert published <= set(names)
    assert all(f".{attempt}/" in name for name in names if name not in published), names


async def test_a_local_file_becomes_hls(
    workshop: Workshop, jobs: HlsJobs, store: S3Store, recording: Path
) -> None:
    job = await worked(workshop, jobs, spec(local(recording)))
    assert job.is_complete, job.error
    assert job.attempts == 1
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
    workshop: Workshop, jobs: HlsJobs, store: S3Store, bucket: str, recording: Path
) -> None:
    key = "streams/a.mp4"
    etag = await upload(store, key, recording)
    source = JobInput(bucket=bucket, key=key, path="/nowhere/a.mp4", etag=etag)
    job = await worked(workshop, jobs, spec(source))
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


@pytest.mark.parametrize("what", ["was replaced", "no such object", "no video"])
async def test_what_the_input_is_to_blame_for_fails_at_once(
    workshop: Workshop,
    jobs: HlsJobs,
    store: S3Store,
    bucket: str,
    recording: Path,
    tmp_path: Path,
    what: str,
) -> None:
    source = JobInput(bucket=bucket, key="streams/a.mp4", etag="other")
    if what == "was replaced":
        await upload(store, source.key, recording)
    elif what == "no video":
        path = tmp_path / "a.mp4"
        path.write_bytes(b"nothing")
        source = local(path)
    job = await worked(workshop, jobs, spec(source))
    assert (job.reason, job.attempts) == (FailReason.ERROR, 1)
    assert what in job.error or what == "no video"
    assert await keys(store) == []


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_store_that_goes_away_while_it_is_published_costs_no_second_encode(
    workshop: Workshop, jobs: HlsJobs, store: S3Store, recording: Path, moment: str
) -> None:
    """Another time, only that is done, and by the same attempt; also where it was done already."""
    made, published = list[str](), list[str]()

    async def make(context: StepContext) -> Made:
        one = await jobs.make(context)
        made.append(context.attempt)
        return one

    async def publish(spec: JobSpec, accepted: Accepted) -> dict[str, Any]:
        published.append(accepted.attempt)
        kept = {}
        if moment == "after" or len(published) > 2:
            kept = await jobs.publish(spec, accepted)
        if len(published) <= 2:
            assert moment == "after" or "master.m3u8" not in await keys(store)
            raise ServerUnreachableError("S3 does not answer")
        return kept

    procedure = replace(jobs.procedure, make=make, publish=publish)
    job = await worked(workshop, procedure, spec(local(recording)))
    assert job.is_complete, job.error
    assert (job.attempts, made) == (1, [job.accepted])
    assert published == [job.accepted] * 3
    assert_only_of(job.accepted, await keys(store))


@dataclass
class Held:
    """HLS whose end is held back once its segments are there."""

    jobs: HlsJobs
    made: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    goes_on: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def procedure(self) -> JobProcedure:
        return replace(self.jobs.procedure, make=self.make)

    async def make(self, context: StepContext) -> Made:
        try:
            made = await self.jobs.make(context)
            self.made.append(context.attempt)
            await self.goes_on.wait()
            return made
        finally:
            self.ended.append(context.attempt)

    async def has_made(self) -> bool:
        return bool(self.made)


async def test_a_worker_that_was_cut_off_leaves_nothing_and_costs_no_attempt(
    workshop: Workshop, jobs: HlsJobs, store: S3Store, recording: Path
) -> None:
    """The engine believes that it is dead, and another makes the job's result."""
    proxy, first, second = (
        RedisProxy(int(workshop.address.rpartition(":")[2])),
        Held(jobs),
        Held(jobs),
    )
    await proxy.start()
    await workshop.desk.submit(spec(local(recording)))
    way = f"127.0.0.1:{proxy.port}"
    async with workshop.worker(first.procedure, name="one", address=way):
        await until(first.has_made, 30, "first attempt")
        proxy.hang()
        async with workshop.worker(second.procedure, name="two"):
            await until(second.has_made, 30, "second attempt")
            proxy.flow()
            (zombie,), (name,) = first.made, second.made

            async def has_no_zombie() -> bool:
                assert (await workshop.desk.get(JOB)).is_running
                return zombie in first.ended and f".{zombie}/" not in "".join(await keys(store))

            await until(has_no_zombie, 30, "the zombie's output is gone")

            async def is_not_counted() -> bool:
                return (await workshop.desk.get(JOB)).attempts == 1

            await until(is_not_counted, 10, "that it was only cut off is heard")
            second.goes_on.set()
            job = await workshop.ended(JOB)
    await proxy.stop()
    assert job.is_complete, job.error
    assert (job.accepted, job.attempts) == (name, 1)
    assert_only_of(name, await keys(store))


async def test_the_zombie_of_a_complete_job_leaves_nothing(
    workshop: Workshop, jobs: HlsJobs, store: S3Store, recording: Path, tmp_path: Path
) -> None:
    """It wakes up after another attempt has published, and goes on to its own end."""
    job = await worked(workshop, jobs, spec(local(recording)))
    before = await keys(store)
    assert_only_of(job.accepted, before)
    order = Order(step=Step.ENCODE, spec=replace(job.spec, input=local(recording)), attempt="a0")
    with open_workplace(tmp_path / "zombie") as workplace:
        host = Host(
            procedures={JobKind.HLS: jobs.procedure},
            slots=Slots({SlotKind.CPU: 1}),
            workplace=workplace,
        )
        await host.perform(order, report=lambda _progress: None, ended=asyncio.Event())
        assert len(await keys(store)) > len(before)
        await host.take_back(order)
    assert await keys(store) == before


@pytest.mark.parametrize("end", ["cancelled", "failed"])
async def test_what_a_job_wrote_that_came_to_no_result_goes(
    workshop: Workshop, jobs: HlsJobs, store: S3Store, recording: Path, end: str
) -> None:
    """Also what its attempts before left while the store let nothing be removed."""
    held, refused = Held(jobs), list[str]()

    async def discard(spec: JobSpec, attempt: str) -> None:
        if len(refused) < 2:
            refused.append(attempt)
            raise ServerUnreachableError("S3 does not answer")
        await jobs.discard(spec, attempt)

    async def make(context: StepContext) -> Made:
        made = await held.make(context)
        if context.slot is None or end == "cancelled":
            return made
        raise ValueError("a mistake of ours")

    await workshop.desk.submit(replace(spec(local(recording)), max_attempts=1))
    async with workshop.worker(replace(jobs.procedure, make=make, discard=discard)):
        await until(held.has_made, 30, "attempt")
        assert any(f".{held.made[0]}/" in name for name in await keys(store))
        if end == "cancelled":
            await workshop.desk.cancel(JOB)
        else:
            held.goes_on.set()
        job = await workshop.ended(JOB)
        expected = FailReason.CANCELLED if end == "cancelled" else FailReason.DEAD_LETTER

        async def is_clean() -> bool:
            return await keys(store) == []

        await until(is_clean, 20, "all of it is gone")
    assert job.reason is expected
    assert refused == held.made * 2


async def test_a_job_waits_for_room_on_the_disk_without_losing_an_attempt(
    workshop: Workshop, jobs: HlsJobs, recording: Path, tmp_path: Path
) -> None:
    asked: list[int] = []

    def disk_bytes(spec: JobSpec) -> int:
        """Far too much, more often than a job may fail."""
        asked.append(1)
        return 1 << 60 if len(asked) <= spec.max_attempts + 2 else 0

    procedure, told = replace(jobs.procedure, disk_bytes=disk_bytes), set[str]()
    await workshop.desk.submit(spec(local(recording)))

    async def has_ended() -> bool:
        job = await workshop.desk.get(JOB)
        told.add(job.error)
        return job.is_final

    async with workshop.worker(procedure):
        await until(has_ended, 60, "the job")
    job = await workshop.desk.get(JOB)
    assert job.is_complete, job.error
    assert job.attempts == 1
    reasons = told - {""}
    assert reasons
    assert all(str(tmp_path) in reason and "STATE_DIR" in reason for reason in reasons)


async def test_without_ffmpeg_here_it_is_made_elsewhere(
    workshop: Workshop, jobs: HlsJobs, store: S3Store, recording: Path
) -> None:
    await workshop.desk.submit(spec(local(recording)))
    lacking = replace(jobs, encoder=never_an_encoder())
    async with workshop.worker(lacking.procedure, name="lacks it"):

        async def has_tried() -> bool:
            job = await workshop.desk.get(JOB)
            assert not job.is_final, job.error
            return "no-such-program" in job.error

        await until(has_tried, 20, "the reason")
        async with workshop.worker(jobs.procedure, name="has it"):
            job = await workshop.ended(JOB)
    assert job.is_complete, job.error
    assert job.attempts == 1
    assert_only_of(job.accepted, await keys(store))


@pytest.mark.parametrize("how", ["rewritten", "cut short"])
async def test_a_file_that_changes_under_the_encoder_is_not_what_is_published(
    workshop: Workshop,
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
    source = replace(local(path), bucket=bucket, key="streams/a.mp4", etag=etag)

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
    job = await worked(workshop, jobs, spec(source))
    assert job.is_complete, job.error
    assert job.attempts == 2
    assert_only_of(job.accepted, await keys(store))
    assert job.result is not None
    assert job.result["warnings"] == 0


# An engine that has forgotten a job does not know what the store still has.


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


@pytest_asyncio.fixture
async def forgetful(temporal_server: TemporalServer, tmp_path: Path) -> AsyncIterator[Workshop]:
    async with new_workshop(temporal_server, tmp_path) as opened:
        yield opened


async def test_a_job_whose_result_is_there_ends_at_once(
    workshop: Workshop, forgetful: Workshop, jobs: HlsJobs, store: S3Store, known: JobSpec
) -> None:
    first = await worked(workshop, jobs, known)
    before = await stored(store)
    started = time.monotonic()
    again = await worked(forgetful, replace(jobs, encoder=never_an_encoder()), known)
    assert again.is_complete, again.error
    assert time.monotonic() - started < 10
    assert (again.step, again.attempts) == (Step.LOOK, 1)
    assert again.result == first.result
    assert await stored(store) == before


@pytest.mark.parametrize("what", ["another object", "no etag", "no master", "a segment is gone"])
async def test_what_is_not_surely_the_result_is_made_again(
    workshop: Workshop,
    forgetful: Workshop,
    jobs: HlsJobs,
    store: S3Store,
    known: JobSpec,
    what: str,
) -> None:
    first = await worked(workshop, jobs, known)
    etag = {"another object": "other", "no etag": ""}.get(what, known.input.etag)
    if what == "no master":
        await store.delete(f"hls/{SUBJECT}/master.m3u8")
    elif what == "a segment is gone":
        await store.delete(next(key for key in await stored(store) if key.endswith(".m4s")))
    job = await worked(forgetful, jobs, replace(known, input=replace(known.input, etag=etag)))
    assert job.is_complete, job.error
    assert job.accepted != first.accepted
    assert_only_of(job.accepted, await keys(store))
