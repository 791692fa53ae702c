"""`cefmp4 worker` as a process: what it tells of itself, and how it ends."""

import asyncio
import os
import shutil
from pathlib import Path

import aiohttp
import pytest
from tests.support.hls_media import recording
from tests.support.job_worker import Workshop, until, workshop
from tests.support.ports import free_port
from tests.support.servers import S3Place
from tests.support.worker_command import running, until_ready

from cefmp4.model.job import Job, JobKind, JobSpec, JobState, input_of_file
from cefmp4.model.part import MIB

__all__ = ["workshop"]

pytestmark = pytest.mark.integration

JOBS = 20


async def test_it_tells_of_itself_and_of_a_port_that_is_taken(
    tmp_path: Path, s3_server: S3Place, workshop: Workshop
) -> None:
    port = free_port()
    async with running(tmp_path, s3_server, workshop, port) as (process, log):
        await until_ready(port, process)
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            async with session.get("/metrics") as response:
                text = await response.text()
            async with session.get("/livez") as response:
                assert response.status == 200
            async with session.get("/api/jobs") as response:
                assert response.status == 404
        assert "cefmp4_job_slots_in_use" in text
        async with running(tmp_path / ".", s3_server, workshop, port) as (second, _):
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


def spec(number: int, path: Path) -> JobSpec:
    source = input_of_file(str(path), path.stat())
    return JobSpec(subject=f"w{number:02}", kind=JobKind.HLS, input=source)


async def scraped(port: int) -> dict[str, float]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/metrics") as response,
    ):
        lines = (await response.text()).splitlines()
    pairs = [line.rpartition(" ") for line in lines if not line.startswith("#")]
    return {series: float(value) for series, _, value in pairs}


def without_driver(folder: Path) -> Path:
    """An ffmpeg that finds no driver of a GPU, whatever this machine has."""
    program = folder / "ffmpeg"
    says = "echo 'Cannot load libcuda.so.1' >&2; exit 187"
    program.write_text(
        f'#!/bin/sh\ncase "$*" in *_nvenc*) {says};; esac\nexec {shutil.which("ffmpeg")} "$@"\n'
    )
    program.chmod(0o700)
    return program


async def test_its_port_tells_how_fast_it_encodes_and_why_not_on_the_gpu(
    tmp_path: Path, s3_server: S3Place, workshop: Workshop
) -> None:
    path = recording(tmp_path, "-c:v", "mpeg4", seconds=24)
    program = without_driver(tmp_path)
    port, changes = free_port(), {"HLS_GPU": "auto", "FFMPEG_PATH": str(program)}
    async with running(tmp_path, s3_server, workshop, port, **changes) as (process, _):
        await until_ready(port, process)
        passed_over = 'cefmp4_encoder_fallbacks_total{encoder="hevc_nvenc",reason="no_driver"}'

        async def has_looked_for_one() -> bool:
            return (await scraped(port))[passed_over] > 0

        await until(has_looked_for_one, 30, "the look for a GPU")
        one = spec(0, path)
        await workshop.desk.submit(one)
        assert (await workshop.ended(one.id)).is_complete
        after = await scraped(port)
    assert after['cefmp4_encode_speed_ratio{slot="cpu"}'] > 0
    assert after['cefmp4_encode_frames_per_second{slot="cpu"}'] > 0
    assert after['cefmp4_job_slots_in_use{slot="cpu"}'] in (0, 1)
    assert after['cefmp4_job_duration_seconds_count{kind="hls"}'] == 1
    assert after['cefmp4_job_results_total{kind="hls",outcome="complete"}'] == 1


async def test_a_job_for_which_the_disk_has_no_room_says_so_and_waits(
    tmp_path: Path, s3_server: S3Place, workshop: Workshop
) -> None:
    port = free_port()
    disk = os.statvfs(tmp_path)
    reserve = str(disk.f_blocks * disk.f_frsize - 1)
    async with running(tmp_path, s3_server, workshop, port, WORK_RESERVE_BYTES=reserve) as (
        process,
        _,
    ):
        one = spec(0, recording(tmp_path, seconds=1))
        await workshop.desk.submit(one)
        await until_ready(port, process)

        async def has_said_so() -> bool:
            return "WORK_RESERVE_BYTES" in (await workshop.desk.get(one.id)).error

        await until(has_said_so, 30, "the reason")
        job = await workshop.desk.get(one.id)
        assert (job.state, job.attempts) == (JobState.QUEUED, 0)
        assert f"{tmp_path}/state/work has " in job.error

        async def is_counted() -> bool:
            outcomes = 'cefmp4_job_results_total{kind="hls",outcome="no_room"}'
            return (await scraped(port)).get(outcomes, 0) == 1

        await until(is_counted, 10, "the count")


async def ended(folder: Path, s3: S3Place, engine: Workshop, path: Path, **changes: str) -> Job:
    """The job of one recording, by a worker with these settings."""
    one, port = spec(1, path), free_port()
    async with running(folder, s3, engine, port, **changes) as (process, _):
        await until_ready(port, process)
        await engine.desk.submit(one)
        return await engine.ended(one.id)


async def test_the_ladder_is_the_one_that_is_asked_for(
    tmp_path: Path, s3_server: S3Place, workshop: Workshop
) -> None:
    path = recording(tmp_path, seconds=1)
    changes = {"HLS_RUNGS": "160,120", "HLS_CODEC": "hevc", "HLS_THUMBNAILS": "false"}
    job = await ended(tmp_path, s3_server, workshop, path, **changes)
    assert job.result, job.error
    assert job.result["renditions"] == ["hevc-160p", "hevc-120p", "audio-0"]


async def test_an_ffmpeg_that_takes_too_much_memory_fails_its_job_once(
    tmp_path: Path, s3_server: S3Place, workshop: Workshop
) -> None:
    path = recording(tmp_path, seconds=9)
    changes = {"FFMPEG_MEMORY_BYTES": str(20 * MIB), "HLS_REMUX": "false"}
    job = await ended(tmp_path, s3_server, workshop, path, **changes)
    assert (job.state, job.attempts) == (JobState.FAILED, 1)
    assert "more than 20 MiB of memory" in job.error
    assert "FFMPEG_MEMORY_BYTES" in job.error
