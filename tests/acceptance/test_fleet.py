"""Four workers with host names of their own share the recordings of two folders. Two of them are
killed and one is stopped in the middle: every recording is done once, and the folders had turns."""

import os
import time
from collections import Counter
from pathlib import Path

import pytest
from tests.support.job_workers import Begun, Worker, Yard, encoded, open_yard
from tests.support.servers import SwiftServer
from tests.support.service import reached

from cefmp4.model.job import JobKind, Step
from cefmp4.temporal.worker import LOOKS

pytestmark = [
    pytest.mark.integration,
    pytest.mark.acceptance,
    pytest.mark.faults,
    pytest.mark.long,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(600),
]

WORKERS = 4
JOBS = int(os.environ.get("CEFMP4_FLEET_JOBS", "40"))
SECONDS = 8
MOST_LOST = 2 * (1 + LOOKS)  # steps that two workers do at the same moment
MOST_AHEAD = WORKERS + 1  # of a folder: so many begin at the same moment, in no order


async def test_four_workers_share_two_folders_and_lose_three_of_them(
    s3_server: SwiftServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    started = time.monotonic()
    changes = {"WATCH_DIR": str(tmp_path), "HLS_THUMBNAILS": "false", "CPU_SLOTS": "1"}
    async with open_yard(s3_server, tmp_path, **changes) as yard:
        recording = await encoded(tmp_path, SECONDS)
        for folder in ("first", "second"):
            for _ in range(JOBS // 2):
                await yard.submit(recording, folder=folder)
        workers = await yard.start_workers(WORKERS)
        assert await reached(lambda: are_known(yard), 30)
        await (await at_work(yard, workers, JOBS // 4)).kill()
        await (await at_work(yard, workers, JOBS // 2)).kill()
        assert await (await at_work(yard, workers, JOBS * 5 // 8)).stop() == 0
        await yard.check_all_is_tidy()
        check_turns(yard)
        check_each_took_part(yard)
        again = Counter(one.job_id for one in yard.begun(step=Step.ENCODE))
        jobs = await yard.jobs()
    assert again.total() <= JOBS + 3  # what was lost or handed back, and nothing else
    assert sum(job.attempts - 1 for job in jobs) <= MOST_LOST  # the stop is not counted
    with capsys.disabled():
        print(  # noqa: T201
            f"\n{JOBS} jobs, {again.total()} encodes in {time.monotonic() - started:.0f} s"
        )


async def are_known(yard: Yard) -> bool:
    """The engine counts each by its host's name."""
    return (await yard.desk.queue(JobKind.HLS)).workers == WORKERS


async def at_work(yard: Yard, workers: list[Worker], count: int) -> Worker:
    """One of those that live, just when it began an encode and so many have begun."""
    running = {worker.name: worker for worker in workers if worker.is_running}
    number = max(count, len(encodes(yard)) + 1)

    def is_it(one: Begun) -> bool:
        return one.worker in running and one in encodes(yard)[number - 1 :]

    begun = await yard.next_begun(is_it, 60, f"encode number {number}")
    return running[begun.worker]


def encodes(yard: Yard) -> list[Begun]:
    return yard.begun(step=Step.ENCODE)


def folder_of(one: Begun) -> str:
    """The first half was of the first one."""
    number = int(one.job_id.removeprefix("s").removesuffix("-hls"))
    return "first" if number < JOBS // 2 else "second"


def check_turns(yard: Yard) -> None:
    begun: Counter[str] = Counter()
    known: set[str] = set()
    for one in encodes(yard):
        if one.job_id in known:
            continue
        known.add(one.job_id)
        begun[folder_of(one)] += 1
        if max(begun.values()) < JOBS // 2:
            ahead = abs(begun["first"] - begun["second"])
            assert ahead <= MOST_AHEAD, [folder_of(each) for each in encodes(yard)]


def check_each_took_part(yard: Yard) -> None:
    assert {one.worker for one in encodes(yard)} == {worker.name for worker in yard.workers}
