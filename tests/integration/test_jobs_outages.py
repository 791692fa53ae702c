"""What ends a real encode before its time: the engine is killed, every worker dies, somebody
cancels it. CEFMP4_AWAY_S says how long the engine is away."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.support.job_workers import Begun, Yard, encoded, open_yard
from tests.support.servers import SwiftServer
from tests.support.service import reached

from cefmp4.model.job import FailReason, Job, JobInput, Step

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

AWAY_S = float(os.environ.get("CEFMP4_AWAY_S", "5"))
SECONDS = 60
CANCEL_S = 2.0
RETURNS_S = 90.0


@asynccontextmanager
async def one_worker(s3: SwiftServer, folder: Path, **changes: str) -> AsyncIterator[Yard]:
    changes = {"WATCH_DIR": str(folder), "HLS_THUMBNAILS": "false", **changes}
    async with open_yard(s3, folder, **changes) as yard:
        await yard.start_workers(1)
        yield yard


async def in_mid_encode(yard: Yard, source: JobInput) -> tuple[str, Begun]:
    """ffmpeg runs, and has stored something."""
    job_id = await yard.submit(source)
    begun = await yard.next_begun(
        lambda one: (one.job_id, one.step) == (job_id, Step.ENCODE), 30, f"encode of {job_id}"
    )

    async def is_writing() -> bool:
        return bool(await outputs(yard, job_id))

    assert await reached(is_writing, 30)
    assert yard.children()
    return job_id, begun


async def outputs(yard: Yard, job_id: str) -> list[str]:
    prefix = f"hls/{job_id.removesuffix('-hls')}/"
    return [found.key async for found in yard.store.list_objects(prefix)]


async def test_a_temporal_that_is_killed_and_comes_back_costs_no_attempt(
    s3_server: SwiftServer, tmp_path: Path
) -> None:
    """Whether its encode still runs then, or is done: what it made may be lost, the job is not."""
    async with one_worker(s3_server, tmp_path) as yard:
        await in_mid_encode(yard, await encoded(tmp_path, SECONDS))
        yard.temporal.process.kill()
        await asyncio.sleep(AWAY_S)
        await yard.temporal.start()
        (job,) = await yard.all_end(AWAY_S + RETURNS_S)
        assert (job.attempts, job.error) == (1, "")
        await yard.check_all_is_tidy()


@pytest.mark.long
async def test_a_worker_leaves_though_temporal_is_away(
    s3_server: SwiftServer, tmp_path: Path
) -> None:
    async with one_worker(s3_server, tmp_path, WORKER_DRAIN_SECONDS="0") as yard:
        job_id, first = await in_mid_encode(yard, await encoded(tmp_path, SECONDS))
        yard.temporal.process.kill()
        assert await yard.workers[0].stop() == 0
        await yard.until_childless()
        assert not [key for key in await outputs(yard, job_id) if first.attempt in key]
        await yard.temporal.start()
        await yard.workers[0].start()
        await yard.check_all_is_tidy()


async def test_a_cancel_ends_ffmpeg_within_two_seconds(
    s3_server: SwiftServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with one_worker(s3_server, tmp_path) as yard:
        source, took_s = await encoded(tmp_path, SECONDS), list[float]()
        for _ in range(3):
            job_id, _ = await in_mid_encode(yard, source)
            took_s.append(await cancelled(yard, job_id))
            job = await ended(yard, job_id)
            assert job.reason is FailReason.CANCELLED

            async def is_clean(job_id: str = job_id) -> bool:
                return await outputs(yard, job_id) == []

            assert await reached(is_clean, 10)
        assert max(took_s) < CANCEL_S
    with capsys.disabled():
        print(f"\ncancel to no ffmpeg: {', '.join(f'{one:.2f}' for one in took_s)} s")  # noqa: T201


async def cancelled(yard: Yard, job_id: str) -> float:
    """Seconds until no program of the worker is there any more."""
    began = time.monotonic()
    await yard.desk.cancel(job_id)
    await yard.until_childless()
    return time.monotonic() - began


async def ended(yard: Yard, job_id: str) -> Job:
    async def is_final() -> bool:
        return (await yard.desk.get(job_id)).is_final

    assert await reached(is_final, 30)
    return await yard.desk.get(job_id)


async def test_a_job_that_loses_every_worker_fails_and_leaves_nothing(
    s3_server: SwiftServer, tmp_path: Path
) -> None:
    """It may be what kills them."""
    async with one_worker(s3_server, tmp_path) as yard:
        (worker,) = yard.workers
        job_id = await yard.submit(await encoded(tmp_path, SECONDS), max_attempts=2)
        lost = set[str]()
        while len(lost) < 2:
            begun = await next_encode(yard, job_id, lost)
            lost.add(begun.attempt)
            await worker.kill()
            await worker.start()
        job = await ended(yard, job_id)
        assert (job.reason, job.attempts) == (FailReason.DEAD_LETTER, 2)

        async def is_clean() -> bool:
            return await outputs(yard, job_id) == []

        assert await reached(is_clean, 20)
        assert await worker.stop() == 0


async def next_encode(yard: Yard, job_id: str, lost: set[str]) -> Begun:
    return await yard.next_begun(
        lambda one: one.step == Step.ENCODE and one.attempt not in lost, 60, f"encode of {job_id}"
    )
