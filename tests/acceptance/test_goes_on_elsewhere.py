"""A worker is killed, frozen or stopped in the middle of an encode: the step begins elsewhere soon,
and what the first one left, or still does when it wakes up, changes nothing. CEFMP4_LOSSES says how
often."""

import os
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.support.job_workers import Begun, Yard, encoded, open_yard
from tests.support.servers import SwiftServer
from tests.support.service import Service, reached

from cefmp4.model.job import JobInput, Step

pytestmark = [
    pytest.mark.integration,
    pytest.mark.acceptance,
    pytest.mark.faults,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(900),
]

LOSSES = int(os.environ.get("CEFMP4_LOSSES", "1"))
NOTICED_S = 15.0
HANDED_BACK_S = 5.0
SECONDS = 60  # of media: nobody is done with it before it is lost
WAKES_S = 20.0


@asynccontextmanager
async def two_workers(s3_server: SwiftServer, folder: Path) -> AsyncIterator[tuple[Yard, JobInput]]:
    changes = {"WATCH_DIR": str(folder), "WORKER_DRAIN_SECONDS": "0", "HLS_THUMBNAILS": "false"}
    async with open_yard(s3_server, folder, **changes) as yard:
        recording = await encoded(folder, SECONDS)
        await yard.start_workers(2)
        yield yard, recording


async def in_mid_encode(yard: Yard, job_id: str) -> tuple[Begun, Service]:
    """It has stored something."""
    begun = await yard.next_begun(
        lambda one: (one.job_id, one.step) == (job_id, Step.ENCODE), 30, f"encode of {job_id}"
    )

    async def is_writing() -> bool:
        keys = [found.key async for found in yard.store.list_objects(prefix_of(job_id))]
        return any(begun.attempt in key for key in keys)

    assert await reached(is_writing, 30)
    return begun, next(worker for worker in yard.workers if worker.name == begun.worker)


def prefix_of(job_id: str) -> str:
    return f"hls/{job_id.removesuffix('-hls')}/"


async def begun_elsewhere(yard: Yard, first: Begun, within_s: float) -> Begun:
    def is_elsewhere(one: Begun) -> bool:
        is_other = one.worker != first.worker and one.attempt != first.attempt
        return is_other and (one.job_id, one.step) == (first.job_id, first.step)

    return await yard.next_begun(is_elsewhere, within_s, f"{first} begun elsewhere")


def tell(capsys: pytest.CaptureFixture[str], what: str, took_s: Sequence[float]) -> None:
    with capsys.disabled():
        print(  # noqa: T201
            f"\n{len(took_s)} times {what}, and begun elsewhere after {min(took_s):.1f} s at least,"
            f" {statistics.median(took_s):.1f} s in the middle, {max(took_s):.1f} s at most"
        )


async def times_until_elsewhere(
    s3_server: SwiftServer,
    folder: Path,
    end: Callable[[Service], Awaitable[object]],
    *,
    within_s: float,
    attempts: int,
) -> list[float]:
    """Of encodes whose worker is ended in the middle. `attempts`: what each job counts then."""
    took_s = []
    async with two_workers(s3_server, folder) as (yard, recording):
        for _ in range(LOSSES):
            first, worker = await in_mid_encode(yard, job_id := await yard.submit(recording))
            ended_at = time.time()
            await end(worker)
            second = await begun_elsewhere(yard, first, within_s)
            took_s.append(second.at - ended_at)
            await worker.start()
            (job,) = [job for job in await yard.all_end() if job.id == job_id]
            assert job.attempts == attempts
        await yard.check_all_is_tidy()
    return took_s


async def test_an_encode_whose_worker_is_killed_begins_elsewhere(
    s3_server: SwiftServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    took_s = await times_until_elsewhere(
        s3_server, tmp_path, Service.kill, within_s=NOTICED_S, attempts=2
    )
    tell(capsys, "killed", took_s)


async def test_an_encode_whose_worker_is_stopped_is_handed_back_and_costs_no_attempt(
    s3_server: SwiftServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def stop(worker: Service) -> None:
        assert await worker.stop() == 0

    took_s = await times_until_elsewhere(
        s3_server, tmp_path, stop, within_s=HANDED_BACK_S, attempts=1
    )
    tell(capsys, "stopped", took_s)


@pytest.mark.long
async def test_an_encode_whose_worker_is_frozen_begins_elsewhere_and_the_frozen_one_changes_nothing(
    s3_server: SwiftServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It wakes up in turn while the other one works and after that was published."""
    took_s = []
    async with two_workers(s3_server, tmp_path) as (yard, recording):
        for number in range(LOSSES):
            first, worker = await in_mid_encode(yard, job_id := await yard.submit(recording))
            frozen_at = time.time()
            worker.pause()
            second = await begun_elsewhere(yard, first, NOTICED_S)
            took_s.append(second.at - frozen_at)
            if number % 2:
                await yard.all_end()
            worker.resume()
            await gives_up(yard, worker, first)
            (job,) = [job for job in await yard.all_end() if job.id == job_id]
            assert job.accepted == second.attempt
        await yard.check_all_is_tidy()
    tell(capsys, "frozen", took_s)


async def gives_up(yard: Yard, worker: Service, first: Begun) -> None:
    """It notices, and removes what it wrote."""

    async def knows() -> bool:
        said = await worker.said()
        return any(first.attempt in line and "cut off" in line for line in said.splitlines())

    assert await reached(knows, WAKES_S)

    async def has_nothing() -> bool:
        found = yard.store.list_objects(prefix_of(first.job_id))
        return not [one.key async for one in found if first.attempt in one.key]

    assert await reached(has_nothing, WAKES_S)
