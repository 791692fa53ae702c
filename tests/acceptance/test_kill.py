"""kill -9 at any moment, and a Redis that was emptied: nothing is lost and nothing is stored twice.
CEFMP4_KILLS says how often it is killed."""

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import psutil
import pytest
from tests.faults.s3_proxy import S3Proxy
from tests.support.servers import SwiftServer
from tests.support.service import MIB, Site, open_site, reached, write

from cefmp4.model import names

pytestmark = [
    pytest.mark.integration,
    pytest.mark.acceptance,
    pytest.mark.faults,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(600),
]

KILLS = int(os.environ.get("CEFMP4_KILLS", "3"))
WRITERS = ("ffmpeg_mp4", "ffmpeg_fragmented", "header_patched", "preallocated")
SECONDS, SPEED = 8.0, 0.8  # four parts a file; more than one part a second in all
IN_FLIGHT = 8  # MAX_PARTS_IN_FLIGHT
PART = 5 * MIB
PATIENCE_S = 60.0
PROBE_OBJECTS = 4  # what finds out once how the server proves things
UPLOADING_AGAIN_S = 2.0  # of its own work: the clock also counts what else the machine does


@dataclass(slots=True)
class Measured:
    """What it cost."""

    restarts_s: list[float] = field(default_factory=list)
    restarts_cpu_s: list[float] = field(default_factory=list)
    sent: int = 0
    needed: int = 0

    def __str__(self) -> str:
        twice = (self.sent - self.needed) / MIB
        return (
            f"{len(self.restarts_s)} kills; restart to uploading: median "
            f"{median(self.restarts_s):.2f} s, at most {max(self.restarts_s):.2f} s, "
            f"CPU {median(self.restarts_cpu_s):.2f} s; sent {self.sent / MIB:.0f} MiB for "
            f"{self.needed / MIB:.0f} MiB, {twice:.0f} MiB twice"
        )


@asynccontextmanager
async def cameras(site: Site, cache: Path) -> AsyncIterator[None]:
    """Each records one file after another, until the end of the block."""
    is_enough = asyncio.Event()

    async def record(writer: str) -> None:
        number = 0
        while not is_enough.is_set():
            number += 1
            output = site.watched / writer / f"{number:03}.mp4"
            await write(writer, output, SECONDS, SPEED, cache)

    async with asyncio.TaskGroup() as recording:
        for writer in WRITERS:
            recording.create_task(record(writer))
        yield
        is_enough.set()


async def kill_in_mid_upload(site: Site, s3: S3Proxy, chance: random.Random) -> None:
    await s3.seen("UploadPart", s3.calls["UploadPart"] + 1, PATIENCE_S)
    await asyncio.sleep(chance.uniform(0.0, 0.5))
    await site.service.kill()


async def restart(site: Site, s3: S3Proxy, measured: Measured) -> None:
    """Until it uploads again."""
    before, started = s3.calls["UploadPart"], time.monotonic()
    await site.service.launch()
    await s3.seen("UploadPart", before + 1, PATIENCE_S)
    measured.restarts_s.append(time.monotonic() - started)
    cpu = psutil.Process(site.service.pid).cpu_times()
    measured.restarts_cpu_s.append(cpu.user + cpu.system)


async def test_killed_again_and_again(
    s3_server: SwiftServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chance, measured = random.Random(KILLS), Measured()
    s3 = S3Proxy(s3_server.port)
    await s3.start()
    try:
        await kill_and_compare(s3_server, s3, tmp_path, chance, measured)
    finally:
        await s3.stop()
    with capsys.disabled():
        print(f"\n{measured}")  # noqa: T201
    assert median(measured.restarts_cpu_s) <= UPLOADING_AGAIN_S
    assert measured.sent - measured.needed <= KILLS * IN_FLIGHT * PART


async def kill_and_compare(
    s3_server: SwiftServer, s3: S3Proxy, folder: Path, chance: random.Random, measured: Measured
) -> None:
    address = f"http://127.0.0.1:{s3.port}"
    async with open_site(s3_server, folder, S3_ENDPOINT_URL=address) as site:
        await site.service.start()
        async with cameras(site, folder):
            for number in range(1, KILLS + 1):
                await kill_in_mid_upload(site, s3, chance)
                if number == KILLS:
                    await site.valkey.flush()
                await restart(site, s3, measured)
        assert await site.described(site.files(), PATIENCE_S) == set()
        await check_stored_once(site)
        measured.sent = s3.part_bytes
        measured.needed = sum((site.watched / path).stat().st_size for path in site.files())
        await check_that_all_is_recognised(site, s3)


async def check_stored_once(site: Site) -> None:
    """Each file has exactly one object, with its bytes, and nothing else is there."""
    for relpath in site.files():
        held = await site.held(relpath)
        assert held.faults(site.watched / relpath) == []
        assert held.stream.generation == 1
    keys = [stored.key async for stored in site.store.list_objects("streams/")]
    objects = sorted(key for key in keys if not key.endswith(names.METADATA_SUFFIX))
    assert objects == sorted(stream.key for stream in (await site.streams()).values())
    assert await site.store.list_uploads("") == []


async def check_that_all_is_recognised(site: Site, s3: S3Proxy) -> None:
    """Redis is emptied once more, when all is finished: nothing is sent again."""
    streams = await site.streams()
    assert await site.service.stop() == 0
    await site.valkey.flush()
    before = s3.part_bytes
    puts = s3.calls["PutObject"]
    await site.service.start()

    async def all_are_known() -> bool:
        return set(await site.streams()) == set(streams)

    assert await reached(all_are_known, PATIENCE_S)
    assert {path: stream.id for path, stream in (await site.streams()).items()} == {
        path: stream.id for path, stream in streams.items()
    }
    assert s3.part_bytes == before
    assert s3.calls["PutObject"] - puts <= PROBE_OBJECTS
    assert await site.service.stop() == 0
