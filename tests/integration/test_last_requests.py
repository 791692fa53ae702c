"""The end of a process whose requests to Temporal are answered late."""

import asyncio
from pathlib import Path

import pytest
from tests.support.temporal_server import TemporalServer
from tests.support.terminal import python

pytestmark = pytest.mark.integration

PROCESSES = 6
ENDS_S = 20.0
ASKS_AND_LEAVES = """
import asyncio, os
from cefmp4.__main__ import command
from cefmp4.commands import jobs
from cefmp4.temporal.asking import kept_days
from cefmp4.temporal.connect import EngineConfig, connect

async def run(arguments, settings):
    print("it ran", end="")
    client = await connect(
        EngineConfig(address=os.environ["ADDRESS"], codec_key=b"key"), identity="one", is_lazy=False
    )
    asked = [asyncio.create_task(kept_days(client)) for _ in range(30)]
    await asyncio.sleep(0.002)
    for request in asked:
        request.cancel()
    await asyncio.gather(*asked, return_exceptions=True)
    return 3

jobs.run = run
command()
"""


async def test_requests_that_were_cancelled_do_not_crash_or_hang_it(
    temporal_server: TemporalServer, tmp_path: Path
) -> None:
    async def ended() -> tuple[int, str]:
        async with asyncio.timeout(ENDS_S):
            answer = await python(
                tmp_path, "-c", ASKS_AND_LEAVES, "jobs", "ls", ADDRESS=temporal_server.address
            )
        return answer.code, answer.out

    for _ in range(PROCESSES // 2):  # one for each core of a small machine
        assert set(await asyncio.gather(ended(), ended())) == {(3, "it ran")}
