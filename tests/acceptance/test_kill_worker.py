"""kill -9 of workers in the middle of real encodes: every job is done once, its HLS is all there,
and nothing of a lost attempt is left. CEFMP4_KILLS says how often one is killed."""

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.faults.s3_proxy import Exchange, Fault, Rule
from tests.support.job_workers import Yard, open_supplied
from tests.support.servers import SwiftServer
from tests.support.service import Service, reached

pytestmark = [
    pytest.mark.integration,
    pytest.mark.acceptance,
    pytest.mark.faults,
    pytest.mark.long,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(900),
]

KILLS = int(os.environ.get("CEFMP4_KILLS", "3"))
SEED = int(os.environ.get("CEFMP4_SEED", "30"))
MOMENT_S = 8.0  # a moment that does not come is not waited for any longer


@dataclass(frozen=True, slots=True)
class Moment:
    """What a worker is just asking the store for when it is killed."""

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
    jobs: int = 0
    attempts: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        when = ", ".join(f"{name} {count}" for name, count in sorted(self.kills.items()))
        return (
            f"{self.kills.total()} kills ({when}) in {self.seconds:.0f} s; {self.jobs} jobs in "
            f"{self.attempts} attempts"
        )


def killing(worker: Service, chance: random.Random) -> Fault:
    """Before the store hears of the request, or before the worker hears of the answer."""

    async def kill(exchange: Exchange) -> bool:
        if chance.random() < 0.5:
            await exchange.fetch()
        await worker.kill()
        return exchange.reset()

    return kill


async def kill_at_some_moment(yard: Yard, worker: Service, chance: random.Random) -> str:
    if chance.random() < 0.3:
        await asyncio.sleep(chance.uniform(0.0, 4.0))
        await worker.kill()
        return "at any moment"
    moment = chance.choice(MOMENTS)
    rule = Rule(
        fault=killing(worker, chance),
        operation=moment.operation,
        key_part=moment.key_part,
        skip=chance.randint(0, moment.most_skipped),
    )
    yard.s3.rules.append(rule)
    came = await reached(_ended(worker), MOMENT_S)
    yard.s3.rules.remove(rule)
    await worker.kill()
    return moment.name if came else "at any moment"


def _ended(worker: Service) -> Callable[[], Awaitable[bool]]:
    async def has_ended() -> bool:
        return not worker.is_running

    return has_ended


async def test_killed_again_and_again_while_it_encodes(
    s3_server: SwiftServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chance, measured, started = random.Random(SEED), Measured(), time.monotonic()
    async with open_supplied(s3_server, tmp_path, CPU_SLOTS="2") as supply:
        yard = supply.yard
        worker = yard.new_worker()
        for _ in range(KILLS):
            await supply.fill()
            await worker.start()
            measured.kills[await kill_at_some_moment(yard, worker, chance)] += 1
            await yard.until_childless()
        await worker.start()
        await yard.check_all_is_tidy()
        jobs = await yard.jobs()
    assert all(job.attempts <= KILLS + 1 for job in jobs)
    measured.jobs, measured.attempts = len(jobs), sum(len(job.attempt_names) for job in jobs)
    measured.seconds = time.monotonic() - started
    with capsys.disabled():
        print(f"\n{measured}")  # noqa: T201
