"""Whoever may write to the watched folder makes events without end: the log, the memory and Redis
stay bounded, and a recording beside them is stored as fast as ever."""

import asyncio
import json
import os

import psutil
import pytest
from redis.asyncio import Redis
from tests.support.other_user import folder_for_all, needs_two_users, run_as_other, start_as_other
from tests.support.servers import SwiftServer
from tests.support.service import MIB, Site, open_site

pytestmark = [
    pytest.mark.integration,
    pytest.mark.acceptance,
    pytest.mark.asyncio(loop_scope="session"),
]

FILES = 20
AT_FULL_SPEED, SLOWLY = 20_000, 1000
LINES = 200  # 126 are of streams
NORMAL_S = 20.0  # a loaded machine; about 2 s on an idle one

MAKE = """
import os, sys
for one in range(int(sys.argv[2])):
    open(f"{sys.argv[1]}/{one}-0.mp4", "wb").write(os.urandom(2000))
"""
RENAME = """
import os, sys, time
os.chdir(sys.argv[1])
files, fast, slow = map(int, sys.argv[2:])
for number in range((fast + slow) // files):
    for one in range(files):
        os.rename(f"{one}-{number}.mp4", f"{one}-{number + 1}.mp4")
    if number * files > fast:  # slow enough that none is merged with the next
        time.sleep(0.15)
    elif number % 50 == 0:
        open(f"gone-{number}.mp4", "wb").close()
        os.unlink(f"gone-{number}.mp4")
"""


async def stored_in(site: Site, name: str, data: bytes) -> None:
    path = site.watched / name
    path.parent.mkdir(exist_ok=True)
    await asyncio.to_thread(path.write_bytes, data)
    assert await site.described({name}, NORMAL_S) == set()


async def records(site: Site) -> int:
    async with Redis.from_url(site.valkey.url) as redis:
        return int(await redis.hlen("cefmp4:streams"))


@pytest.mark.alone
@needs_two_users
@pytest.mark.timeout(180)
async def test_renames_without_end(s3_server: SwiftServer) -> None:
    with folder_for_all() as folder:
        async with open_site(s3_server, folder) as site:
            site.watched.chmod(0o755)
            evil = site.watched / "evil"
            evil.mkdir()
            evil.chmod(0o777)
            await site.service.start()
            await stored_in(site, "cam/before.mp4", os.urandom(6 * MIB))
            assert run_as_other(MAKE, str(evil), str(FILES)).code == 0
            assert await site.described({f"evil/{n}-0.mp4" for n in range(FILES)}, 30) == set()
            memory = psutil.Process(site.service.pid).memory_info().rss
            numbers = map(str, (FILES, AT_FULL_SPEED, SLOWLY))
            attack = start_as_other(RENAME, str(evil), *numbers)
            try:
                await stored_in(site, "cam/rec.mp4", os.urandom(11 * MIB))
                _, errors = await asyncio.to_thread(attack.communicate)
                assert attack.returncode == 0, errors
            finally:
                attack.kill()
                attack.wait()
            names = {f"evil/{path.name}" for path in evil.iterdir()}
            assert len(names) == FILES
            assert await site.described(names, 60) == set()
            assert (await site.held("cam/rec.mp4")).faults(site.watched / "cam/rec.mp4") == []
            assert await records(site) <= 2 * FILES + 10
            grown = psutil.Process(site.service.pid).memory_info().rss - memory
            assert grown < 100 * MIB
            assert await site.service.stop() == 0
            text = await site.service.said()
            assert len(text.splitlines()) < LINES
            left_out = [json.loads(line) for line in text.splitlines() if "left out" in line]
            assert [line["most_in"] for line in left_out] == ["evil"]
            assert left_out[0]["count"] > 100
            assert '"file_path": "cam/rec.mp4", "bytes"' in text
            assert site.errors() == []
