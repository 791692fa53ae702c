"""A writer that comes back between the completion of its object and the end of its description."""

import asyncio
import os
from pathlib import Path

import pytest
from tests.support.servers import SwiftServer
from tests.support.service import Site, open_site, reached
from tests.support.slow_probe import slow_probe

pytestmark = [
    pytest.mark.integration,
    pytest.mark.acceptance,
    pytest.mark.asyncio(loop_scope="session"),
]

PATIENCE_S = 30.0
POLL_SECONDS = 0.1


async def change_while_described(site: Site, before: bytes, after: bytes) -> None:
    (site.watched / "r.mp4").write_bytes(before)
    await site.service.start()

    async def is_begun() -> bool:
        return (site.folder / "begun").exists()

    assert await reached(is_begun, PATIENCE_S)
    (site.watched / "r.mp4").write_bytes(after)
    await asyncio.sleep(5 * POLL_SECONDS)  # so that the service looks at it meanwhile
    (site.folder / "go").touch()


async def test_it_is_stored_as_the_next_generation(s3_server: SwiftServer, tmp_path: Path) -> None:
    before, after = os.urandom(200_000), os.urandom(300_000)
    probe = slow_probe(tmp_path)
    async with open_site(s3_server, tmp_path, FFPROBE_PATH=probe) as site:
        await change_while_described(site, before, after)
        assert await site.described(["r.mp4"], PATIENCE_S) == set()
        held = await site.held("r.mp4")
        assert held.faults(site.watched / "r.mp4") == []
        assert held.stream.generation == 2
        assert await site.service.stop() == 0


async def test_it_is_not_deleted_before_it_is_stored(
    s3_server: SwiftServer, tmp_path: Path
) -> None:
    before, after = os.urandom(200_000), os.urandom(300_000)
    changes = {"FFPROBE_PATH": slow_probe(tmp_path), "AFTER_UPLOAD": "delete"}
    async with open_site(s3_server, tmp_path, **changes) as site:
        await change_while_described(site, before, after)

        async def is_deleted() -> bool:
            return not (site.watched / "r.mp4").exists()

        assert await reached(is_deleted, PATIENCE_S)
        stored = [await site.store.read(stream.key) for stream in (await site.streams()).values()]
        assert stored == [after]


async def test_one_that_stopped_is_not_shown_at_work(
    s3_server: SwiftServer, tmp_path: Path
) -> None:
    """It said last that it worked on the next generation, which came to nothing."""
    async with open_site(s3_server, tmp_path, FFPROBE_PATH=slow_probe(tmp_path)) as site:
        (site.watched / "r.mp4").write_bytes(os.urandom(200_000))
        await site.service.start()

        async def is_shown() -> bool:
            return bool(await site.checkpoints.load_views())

        assert await reached(is_shown, PATIENCE_S)
        (site.folder / "go").touch()
        assert await site.service.stop() == 0
        assert await site.checkpoints.load_views() == []


async def test_a_shorter_recording_that_rsync_writes_over_a_longer_one(
    s3_server: SwiftServer, tmp_path: Path
) -> None:
    """In place, and cut to its length at the end: a new recording, not one that was cut off."""
    shorter = tmp_path / "shorter.mp4"
    await asyncio.to_thread(shorter.write_bytes, os.urandom(3_000_000))
    async with open_site(s3_server, tmp_path) as site:
        (site.watched / "r.mp4").write_bytes(os.urandom(30_000_000))
        await site.service.start()
        assert await site.described(["r.mp4"], PATIENCE_S) == set()
        rsync = await asyncio.create_subprocess_exec(
            *("rsync", "--inplace", "--no-whole-file", "--bwlimit=2000"),
            *(str(shorter), str(site.watched / "r.mp4")),
        )
        assert await rsync.wait() == 0
        assert await site.described(["r.mp4"], PATIENCE_S) == set()
        assert (await site.held("r.mp4")).faults(site.watched / "r.mp4") == []
        assert (await site.service.metrics())["streams_failed_total"] == 0
        assert site.errors() == []
        assert await site.service.stop() == 0
