"""Many recordings of one name under `{filename}`, whose keys would be one: the real service stores
each, whatever happens meanwhile, and whether or not the server itself refuses a taken key."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from awscrt.checksums import crc64nvme
from tests.support.ports import free_port
from tests.support.servers import SwiftServer
from tests.support.service import MIB, Service, Site, open_site, reached
from tests.support.terminal import cefmp4

from cefmp4.app.clients import proof_memo
from cefmp4.model import names

pytestmark = [
    pytest.mark.integration,
    pytest.mark.acceptance,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(300),
]

PATIENCE_S = 120.0
BLOCKS, PACE_S = 12, 0.4  # of half a MiB: more than one part a file, and five seconds


@pytest.fixture(
    params=[
        pytest.param(True, id="refusing"),
        pytest.param(False, id="deaf", marks=pytest.mark.long),
    ]
)
def is_refusing(request: pytest.FixtureRequest) -> bool:
    """Whether the server is believed to refuse a taken key. If not, it is never asked to: that is
    how a server looks that ignores the question, as Ceph does at completion."""
    found: bool = request.param
    return found


@asynccontextmanager
async def site_of(s3: SwiftServer, folder: Path, *, is_refusing: bool) -> AsyncIterator[Site]:
    async with open_site(s3, folder, S3_KEY_TEMPLATE="{filename}") as site:
        await believe(site, is_refusing=is_refusing)
        yield site


async def believe(site: Site, *, is_refusing: bool) -> None:
    proof = replace(site.store.proof, put_if_absent=is_refusing, complete_if_absent=is_refusing)
    settings = site.service.settings
    memo = proof_memo(settings["S3_ENDPOINT_URL"], settings["S3_BUCKET_NAME"])
    await site.checkpoints.remember(memo, json.dumps(asdict(proof)))


async def record(path: Path, *, blocks: int = BLOCKS) -> None:
    path.parent.mkdir(exist_ok=True)
    with await asyncio.to_thread(path.open, "wb", buffering=0) as file:
        for _ in range(blocks):
            await asyncio.to_thread(file.write, os.urandom(MIB // 2))
            await asyncio.sleep(PACE_S)


@asynccontextmanager
async def recording(site: Site, count: int) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(record(site.watched / f"camera {number:02}" / "r.mp4"))
        yield


async def wait_for_parts(site: Site) -> None:
    async def has_parts() -> bool:
        return any([stream.sent_high for stream in (await site.streams()).values()])

    assert await reached(has_parts, PATIENCE_S)


async def assert_all_are_stored(site: Site, *, count: int) -> None:
    assert len(site.files()) == count
    assert await site.described(site.files(), PATIENCE_S) == set()
    keys = []
    for relpath in sorted(site.files()):
        held = await site.held(relpath)
        assert held.faults(site.watched / relpath) == []
        assert held.document["stream_id"] == held.stream.id
        keys.append(held.stream.key)
    assert len(set(keys)) == count
    listed = {stored.key async for stored in site.store.list_objects("")}
    assert listed >= {*keys, *map(names.metadata_key, keys)}
    verified = await cefmp4(site.folder, "verify", **site.service.settings)
    assert (verified.code, verified.out.splitlines()[-1]) == (0, f"{count} of {count} identical")


async def test_twenty_side_by_side(
    s3_server: SwiftServer, tmp_path: Path, is_refusing: bool
) -> None:
    async with site_of(s3_server, tmp_path, is_refusing=is_refusing) as site:
        await site.service.start()
        async with recording(site, 20):
            pass
        await assert_all_are_stored(site, count=20)
        keys = {stream.key for stream in (await site.streams()).values()}
        assert "r.mp4" in keys
        assert len({stored.key async for stored in site.store.list_objects("")}) == 40
        assert await site.store.list_uploads("") == []
        assert await site.service.stop() == 0


async def test_with_a_kill_and_a_memory_that_is_lost(
    s3_server: SwiftServer, tmp_path: Path, is_refusing: bool
) -> None:
    async with site_of(s3_server, tmp_path, is_refusing=is_refusing) as site:
        await site.service.start()
        async with recording(site, 6):
            await wait_for_parts(site)
            await site.service.kill()
            await site.service.start()
            await site.valkey.flush()  # while it runs
            await believe(site, is_refusing=is_refusing)
            await asyncio.sleep(1)
            await site.service.kill()
            await site.valkey.flush()  # while it does not
            await believe(site, is_refusing=is_refusing)
            await site.service.start()
        await assert_all_are_stored(site, count=6)
        assert await site.service.stop() == 0


async def test_with_two_instances(
    s3_server: SwiftServer, tmp_path: Path, is_refusing: bool
) -> None:
    async with site_of(s3_server, tmp_path, is_refusing=is_refusing) as site:
        changes = {"PROM_PORT": str(free_port()), "INSTANCE_ID": "second"}
        second = Service("second", site.service.settings | changes, tmp_path)
        try:
            await asyncio.gather(site.service.start(), second.start())
            async with recording(site, 8):
                await wait_for_parts(site)
                await second.kill()
            await assert_all_are_stored(site, count=8)
            assert len({stored.key async for stored in site.store.list_objects("")}) == 16
        finally:
            await second.kill()
        assert await site.service.stop() == 0


async def test_the_next_generation_has_a_key_of_its_own(
    s3_server: SwiftServer, tmp_path: Path, is_refusing: bool
) -> None:
    async with site_of(s3_server, tmp_path, is_refusing=is_refusing) as site:
        await site.service.start()
        path = site.watched / "r.mp4"
        contents = {}
        for size in (1000, 6 * MIB, 0):
            content = os.urandom(size)
            await asyncio.to_thread(path.write_bytes, content)
            assert await site.described({"r.mp4"}, PATIENCE_S) == set()
            contents[(await site.streams())["r.mp4"].key] = content
        assert len(contents) == 3
        for key, content in contents.items():
            assert await site.store.read(key) == content
        assert await site.service.stop() == 0


async def test_what_lies_in_the_bucket_already_stays(
    s3_server: SwiftServer, tmp_path: Path, is_refusing: bool
) -> None:
    """Also where it looks like ours, in a folder of the user's that is called like one of ours."""
    async with open_site(s3_server, tmp_path, S3_KEY_TEMPLATE="{relpath}") as site:
        await believe(site, is_refusing=is_refusing)
        theirs = {"r.mp4": b"theirs", "hls/r.mp4": b"theirs, too", "x.mp4.metadata.json": b"{}"}
        for key, body in theirs.items():
            await site.store.put_object(
                key, body, content_type="", metadata={}, crc64=crc64nvme(body)
            )
        for relpath in ("r.mp4", "x.mp4", "hls/r.mp4", "analysis/r.mp4"):
            path = site.watched / relpath
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(os.urandom(1000))
        await site.service.start()
        await assert_all_are_stored(site, count=4)
        for key, body in theirs.items():
            assert await site.store.read(key) == body
        keys = {relpath: stream.key for relpath, stream in (await site.streams()).items()}
        assert keys["hls/r.mp4"] == "hls~/r.mp4"
        assert keys["analysis/r.mp4"] == "analysis~/r.mp4"
        assert keys["r.mp4"].startswith("r~")
        assert keys["x.mp4"].startswith("x~")
        assert await site.service.stop() == 0


async def test_an_orphan_shows_soon(s3_server: SwiftServer, tmp_path: Path) -> None:
    async with open_site(s3_server, tmp_path) as site:
        key = "streams/20260101T000000Z-0000aaaa/r.mp4"
        await site.store.begin_upload(key, content_type="", metadata={})
        await site.service.start()

        async def is_shown() -> bool:
            return (await site.service.metrics()).get("cefmp4_orphan_multipart_uploads") == 1

        assert await reached(is_shown, 15)
        listed = await cefmp4(
            site.folder, "streams", "ls", "--orphans", "--json", **site.service.settings
        )
        (orphan,) = [json.loads(line) for line in listed.out.splitlines()]
        assert (orphan["key"], orphan["size"], orphan["is_ours"]) == (key, 0, True)
        shown = await cefmp4(site.folder, "streams", "ls", "--orphans", **site.service.settings)
        assert "ORPHAN_GRACE_SECONDS" in shown.out
        assert await site.service.stop() == 0
