"""A Redis that was emptied while the service was down: what is stored is recognised, however long
the first look at the folder takes."""

import asyncio
import os
from pathlib import Path

import pytest
from tests.support.servers import SwiftServer
from tests.support.service import Site, open_site

pytestmark = [
    pytest.mark.integration,
    pytest.mark.acceptance,
    pytest.mark.asyncio(loop_scope="session"),
]

FILES, FOLDERS = 8, 3000
PATIENCE_S = 60.0


def fill(site: Site) -> None:
    for number in range(FILES):
        (site.watched / f"{number}.mp4").write_bytes(os.urandom(1000 + number))
    for number in range(FOLDERS):
        (site.watched / f"folder {number:04}").mkdir()


async def objects(site: Site) -> set[str]:
    return {stored.key async for stored in site.store.list_objects("streams/")}


async def test_nothing_is_stored_twice(s3_server: SwiftServer, tmp_path: Path) -> None:
    async with open_site(s3_server, tmp_path) as site:
        await asyncio.to_thread(fill, site)
        await site.service.start()
        assert await site.described(site.files(), PATIENCE_S) == set()
        before, keys = await site.streams(), await objects(site)
        assert await site.service.stop() == 0
        await site.valkey.flush()
        await site.service.start()
        assert await site.described(site.files(), PATIENCE_S) == set()
        after = await site.streams()
        assert {path: one.id for path, one in after.items()} == {
            path: one.id for path, one in before.items()
        }
        assert await objects(site) == keys
        assert await site.service.stop() == 0
        said = (await site.service.said()).count
        assert said("recognised a stored file") == FILES
        assert said("stored and proven") == FILES, "only what was sent is said to be proven"
