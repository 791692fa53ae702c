"""Recordings of one size and one date, copied one after the other to a disk that gives the second
the inode of the first: each is stored, and none is removed before that."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.faults.disks import disk
from tests.faults.registry import CannotRunError
from tests.support.servers import SwiftServer
from tests.support.service import MIB, Site, open_site, reached

pytestmark = [
    pytest.mark.integration,
    pytest.mark.acceptance,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.skipif(shutil.which("rsync") is None, reason="rsync copies the recordings"),
]

BYTES, DATE = 20 * MIB, 1_700_000_000
PATIENCE_S = 60.0


@asynccontextmanager
async def open_card(s3: SwiftServer, folder: Path, **changes: str) -> AsyncIterator[Site]:
    """The watched folder is a disk of its own; the recordings lie on the card."""
    card = folder / "card"
    card.mkdir()
    for name in ("front.mp4", "rear.mp4"):
        await asyncio.to_thread((card / name).write_bytes, os.urandom(BYTES))
        os.utime(card / name, (DATE, DATE))
    async with open_site(s3, folder, **changes) as site:
        try:
            async with disk(site.watched, 96 * MIB):
                yield site
                assert await site.service.stop() == 0
        except CannotRunError as error:
            pytest.skip(str(error))


async def copy(site: Site, name: str) -> int:
    """Returns the inode that the copy has got."""
    source, target = site.folder / "card" / name, site.watched / name
    await asyncio.to_thread(
        subprocess.run, ("rsync", "-t", source, f"{site.watched}/"), check=True, timeout=60
    )
    return target.stat().st_ino


async def contents(site: Site) -> list[bytes]:
    keys = [stored.key async for stored in site.store.list_objects("streams/")]
    return [await site.store.read(key) for key in keys if not key.endswith(".metadata.json")]


async def test_each_is_stored_before_it_is_deleted(s3_server: SwiftServer, tmp_path: Path) -> None:
    async with open_card(s3_server, tmp_path, AFTER_UPLOAD="delete") as site:
        await site.service.start()

        async def is_gone_and_closed() -> bool:
            held = site.service.descriptors()
            is_open = any(path.startswith(f"{site.watched}/") for path in held)
            return not any(site.watched.iterdir()) and not is_open

        inodes = []
        for name in ("front.mp4", "rear.mp4"):
            inodes.append(await copy(site, name))
            assert await reached(is_gone_and_closed, PATIENCE_S)
        assert inodes[0] == inodes[1], "the inode was not used again: this tests nothing"
        wanted = [(site.folder / "card" / n).read_bytes() for n in ("front.mp4", "rear.mp4")]
        assert sorted(await contents(site)) == sorted(wanted)


@pytest.mark.parametrize("is_running", [True, False], ids=["running", "stopped"])
async def test_one_that_took_the_place_of_a_deleted_one(
    s3_server: SwiftServer, tmp_path: Path, is_running: bool
) -> None:
    """The second is copied while the service runs again, or before that."""
    async with open_card(s3_server, tmp_path) as site:
        first = await copy(site, "front.mp4")
        await site.service.start()
        assert await site.described(["front.mp4"], PATIENCE_S) == set()
        assert await site.service.stop() == 0
        (site.watched / "front.mp4").unlink()
        if is_running:
            await site.service.start()
        second = await copy(site, "rear.mp4")
        assert first == second, "the inode was not used again: this tests nothing"
        if not is_running:
            await site.service.start()
        assert await site.described(["rear.mp4"], PATIENCE_S) == set()
        assert (await site.held("rear.mp4")).faults(site.watched / "rear.mp4") == []
        assert len(await contents(site)) == 2


async def test_a_file_that_was_renamed_meanwhile_is_not_sent_again(
    s3_server: SwiftServer, tmp_path: Path
) -> None:
    async with open_card(s3_server, tmp_path) as site:
        await copy(site, "front.mp4")
        await site.service.start()
        assert await site.described(["front.mp4"], PATIENCE_S) == set()
        assert await site.service.stop() == 0
        (site.watched / "front.mp4").rename(site.watched / "kept.mp4")
        await site.service.start()
        assert await site.described(["kept.mp4"], PATIENCE_S) == set()
        assert (await site.held("kept.mp4")).faults(site.watched / "kept.mp4") == []
        assert len(await contents(site)) == 1
