"""kill -9 between an object and its document, and then another recording under the same name: both
end with object and document."""

import asyncio
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.servers import SwiftServer
from tests.support.service import Site, open_site, reached
from tests.support.slow_probe import slow_probe

from cefmp4.model.stream import StreamState

pytestmark = [
    pytest.mark.integration,
    pytest.mark.acceptance,
    pytest.mark.asyncio(loop_scope="session"),
]

PATIENCE_S = 40.0


def overwrite(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def rename_over(path: Path, data: bytes) -> None:
    beside = path.with_name("other.mp4")
    beside.write_bytes(data)
    beside.replace(path)


async def kill_when_stored(site: Site) -> None:
    await site.service.start()

    async def is_stored() -> bool:
        streams = (await site.streams()).values()
        return any(stream.state is StreamState.STORED for stream in streams)

    assert await reached(is_stored, PATIENCE_S)
    await site.service.kill()


async def documents(site: Site) -> list[dict[str, Any]]:
    keys = [stored.key async for stored in site.store.list_objects("streams/")]
    return [
        json.loads(await site.store.read(key)) for key in keys if key.endswith(".metadata.json")
    ]


@pytest.mark.parametrize("change", [overwrite, rename_over])
async def test_every_object_has_its_document(
    s3_server: SwiftServer, tmp_path: Path, change: Callable[[Path, bytes], None]
) -> None:
    before, after = os.urandom(200_000), os.urandom(300_000)
    async with open_site(s3_server, tmp_path, FFPROBE_PATH=slow_probe(tmp_path)) as site:
        (site.watched / "r.mp4").write_bytes(before)
        await kill_when_stored(site)
        (site.folder / "go").touch()
        await asyncio.to_thread(change, site.watched / "r.mp4", after)
        await site.service.start()
        assert await site.described(["r.mp4"], PATIENCE_S) == set()
        told = {document["sha256"]: document["generation"] for document in await documents(site)}
        assert told == {
            hashlib.sha256(before).hexdigest(): 1,
            hashlib.sha256(after).hexdigest(): 2,
        }
        assert await site.service.stop() == 0


async def test_a_stream_whose_name_another_one_took(s3_server: SwiftServer, tmp_path: Path) -> None:
    """Two were stored and not described; then one takes the name of the other."""
    one, two = os.urandom(200_000), os.urandom(300_000)
    async with open_site(s3_server, tmp_path, FFPROBE_PATH=slow_probe(tmp_path)) as site:
        (site.watched / "one.mp4").write_bytes(one)
        (site.watched / "two.mp4").write_bytes(two)
        await site.service.start()

        async def are_stored() -> bool:
            streams = (await site.streams()).values()
            return [stream.state for stream in streams] == [StreamState.STORED] * 2

        assert await reached(are_stored, PATIENCE_S)
        await site.service.kill()
        (site.folder / "go").touch()
        (site.watched / "two.mp4").rename(site.watched / "one.mp4")
        await site.service.start()

        async def are_described() -> bool:
            told = {document["sha256"] for document in await documents(site)}
            return told == {hashlib.sha256(data).hexdigest() for data in (one, two)}

        assert await reached(are_described, PATIENCE_S)
        assert await site.described(["one.mp4"], PATIENCE_S) == set()
        assert await site.service.stop() == 0
