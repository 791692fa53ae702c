"""kill -9 of Temporal in the middle of encodes, while it is looked after as `cefmp4 up` does it: on
the same port and data it goes on, and every job is done once. CEFMP4_ENGINE_KILLS says how often it
is killed."""

import asyncio
import os
import random
import signal
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.support.job_workers import READY, Supply, open_supplied
from tests.support.servers import SwiftServer
from tests.support.temporal_server import TemporalServer

from cefmp4.embedded.state import Connection
from cefmp4.embedded.supervisor import MAX_RESTARTS, RESTART_WINDOW_SECONDS, EmbeddedServers
from cefmp4.model.job import Step
from cefmp4.tasks import cancel_all

pytestmark = [
    pytest.mark.integration,
    pytest.mark.acceptance,
    pytest.mark.faults,
    pytest.mark.long,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(900),
]

KILLS = int(os.environ.get("CEFMP4_ENGINE_KILLS", "3"))
SEED = int(os.environ.get("CEFMP4_SEED", "30"))
GOES_ON_S = 30.0


@asynccontextmanager
async def looked_after(temporal: TemporalServer) -> AsyncIterator[None]:
    connection = Connection(s3_region_name="", bucket="", pid=os.getpid())
    servers = EmbeddedServers([temporal.process], connection, 30)
    watching = asyncio.create_task(servers.watch())
    try:
        yield
        assert not watching.done(), watching.exception()
    finally:
        await cancel_all([watching])


async def kill_in_mid_encode(supply: Supply, chance: random.Random) -> float:
    """Returns how long it took until the next step began."""
    yard, asked_at = supply.yard, time.time()
    await supply.add(READY)
    await yard.next_begun(
        lambda one: one.at > asked_at and one.step == Step.ENCODE, GOES_ON_S, "encode"
    )
    await asyncio.sleep(chance.uniform(0.0, 1.5))
    killed_at = time.time()
    os.kill(yard.temporal.process.pid, signal.SIGKILL)
    following = await yard.next_begun(lambda one: one.at > killed_at, GOES_ON_S, "next step")
    return following.at - killed_at


async def test_killed_again_and_again_while_workers_encode(
    s3_server: SwiftServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chance, started, took_s = random.Random(SEED), time.monotonic(), list[float]()
    async with open_supplied(s3_server, tmp_path, CPU_SLOTS="1") as supply:
        yard = supply.yard
        await yard.start_workers(2)
        async with looked_after(yard.temporal):
            killed_at = list[float]()
            for number in range(KILLS):
                if number >= MAX_RESTARTS:  # one that dies more often ends `up`
                    may_die_at = killed_at[-MAX_RESTARTS] + RESTART_WINDOW_SECONDS
                    await asyncio.sleep(max(0.0, may_die_at - time.monotonic()))
                took_s.append(await kill_in_mid_encode(supply, chance))
                killed_at.append(time.monotonic())
            await yard.check_all_is_tidy()
            jobs = await yard.jobs()
    with capsys.disabled():
        print(  # noqa: T201
            f"\n{KILLS} kills in {time.monotonic() - started:.0f} s; {len(jobs)} jobs, "
            f"{sum(job.attempts - 1 for job in jobs)} attempts lost; the next step began "
            f"{min(took_s):.1f} s after a kill at least, {statistics.median(took_s):.1f} s in the "
            f"middle, {max(took_s):.1f} s at most"
        )
