"""An unmounted folder never looks like deleted files, and folders of several hosts never meet."""

import asyncio
import os
from pathlib import Path

import pytest
from tests.faults.disks import disk, unmount
from tests.faults.s3_proxy import S3Proxy
from tests.support.folders import (
    PART,
    PATIENCE_S,
    SIZE,
    Recorder,
    on_a_disk,
    stored,
    uploaded_two_parts,
)
from tests.support.ports import free_port
from tests.support.servers import SwiftServer
from tests.support.service import Service, Site, open_site, reached, settings_of

from cefmp4.model import names
from cefmp4.model.stream import StreamState

pytestmark = [
    pytest.mark.integration,
    pytest.mark.acceptance,
    pytest.mark.faults,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(300),
]


async def test_an_unmounted_folder_at_start_is_waited_for(
    s3_server: SwiftServer, tmp_path: Path
) -> None:
    async with on_a_disk(s3_server, tmp_path) as ground:
        site, s3 = ground.site, ground.s3
        await site.service.start()
        recorder = Recorder(ground.disk.point / "r.mp4")
        (ground.disk.point / "done.mp4").write_bytes(b"x" * 1000)
        await uploaded_two_parts(ground)
        await site.service.kill()
        before = await ground.stream("r.mp4")
        recorder.end()
        await ground.disk.pull()
        await site.service.launch()
        assert await reached(ground.waits, PATIENCE_S)
        assert "503" in await ground.ready_text()
        assert "empty or not mounted, 2 recordings are known in it" in await ground.ready_text()
        assert (await site.service.metrics())["cefmp4_watch_folder_up"] == 0
        notes = await site.checkpoints.load_notes()
        assert "not mounted" in next(iter(notes.values()))
        assert (await ground.stream("r.mp4")).upload_id == before.upload_id
        assert os.listdir(ground.disk.point) == []
        await ground.disk.plug_in()
        await site.service.ready()
        await stored(ground, "r.mp4", recorder.content)
        assert (await ground.stream("r.mp4")).id == before.id
        assert s3.whole_part_bytes <= SIZE
        assert s3.calls["AbortMultipartUpload"] == 0
        assert await site.service.stop() == 0


async def test_a_folder_that_is_unmounted_in_mid_upload_is_waited_for(
    s3_server: SwiftServer, tmp_path: Path
) -> None:
    async with on_a_disk(s3_server, tmp_path) as ground:
        site, s3 = ground.site, ground.s3
        await site.service.start()
        recorder = Recorder(ground.disk.point / "r.mp4")
        await uploaded_two_parts(ground)
        before = await ground.stream("r.mp4")
        await ground.disk.pull()
        assert await reached(ground.waits, PATIENCE_S)
        await asyncio.sleep(2)  # longer than a file that is gone has
        now = await ground.stream("r.mp4")
        assert (now.state, now.upload_id) == (StreamState.UPLOADING, before.upload_id)
        recorder.end()
        await ground.disk.plug_in()
        await site.service.ready()
        await stored(ground, "r.mp4", recorder.content)
        assert s3.whole_part_bytes <= SIZE
        assert s3.calls["AbortMultipartUpload"] == 0
        assert not [error for error in site.errors() if "exception" in error]
        assert await site.service.stop() == 0


async def test_another_disk_is_served_under_its_own_identity(
    s3_server: SwiftServer, tmp_path: Path
) -> None:
    async with on_a_disk(s3_server, tmp_path) as ground:
        site = ground.site
        await site.service.start()
        recorder = Recorder(ground.disk.point / "r.mp4")
        await uploaded_two_parts(ground)
        before = await ground.stream("r.mp4")
        async with disk(ground.disk.point, image=tmp_path / "other") as other:
            (other.point / "r.mp4").write_bytes(b"other" * 1000)

            async def are_two() -> bool:
                streams = await site.checkpoints.load_streams()
                return len([one for one in streams if one.relpath == "r.mp4"]) == 2

            assert await reached(are_two, PATIENCE_S)
            assert await reached(site.service.is_ready, PATIENCE_S)
            kept = await site.checkpoints.load_stream(before.id)
            assert kept is not None
            assert (kept.state, kept.upload_id) == (before.state, before.upload_id)
        recorder.end()
        await site.service.ready()

        async def is_stored() -> bool:
            stream = await site.checkpoints.load_stream(before.id)
            return stream is not None and stream.is_proven

        assert await reached(is_stored, PATIENCE_S)
        assert ground.s3.calls["AbortMultipartUpload"] == 0
        assert ground.s3.whole_part_bytes <= SIZE
        assert await site.service.stop() == 0


async def test_with_its_mark_an_empty_folder_is_empty(
    s3_server: SwiftServer, tmp_path: Path
) -> None:
    async with on_a_disk(s3_server, tmp_path) as ground:
        site = ground.site
        await site.service.start()
        recorder = Recorder(ground.disk.point / "r.mp4")
        await uploaded_two_parts(ground)
        await site.service.kill()
        recorder.end()
        (ground.disk.point / "r.mp4").unlink()
        await site.service.start()

        async def has_failed() -> bool:
            return (await ground.stream("r.mp4")).reason.startswith("missing")

        assert await reached(has_failed, PATIENCE_S)
        assert await site.store.list_uploads("") == []
        assert await site.service.stop() == 0


# Hosts.


class Host:
    """One more service with the same Redis and bucket, a folder and a name of its own."""

    def __init__(self, site: Site, s3_server: SwiftServer, bucket: str, name: str, **changes: str):
        self.folder = site.folder / name
        self.watched = self.folder / "watched"
        self.watched.mkdir(parents=True)
        settings = settings_of(s3_server, site.valkey, bucket, self.watched)
        self.service = Service(
            "ingest",
            settings | {"INSTANCE_ID": name, "STREAM_TIMEOUT_SECONDS": "60"} | changes,
            self.folder,
        )


async def test_two_hosts_with_folders_of_their_own(s3_server: SwiftServer, tmp_path: Path) -> None:
    s3 = S3Proxy(s3_server.port)
    await s3.start()
    address = f"http://127.0.0.1:{s3.port}"
    async with open_site(s3_server, tmp_path) as site:
        bucket = site.service.settings["S3_BUCKET_NAME"]
        hosts = [
            Host(site, s3_server, bucket, name, S3_ENDPOINT_URL=address) for name in ("one", "two")
        ]
        try:
            await run_two_hosts(site, hosts, s3)
        finally:
            for host in hosts:
                await host.service.kill()
            await s3.stop()


async def run_two_hosts(site: Site, hosts: list[Host], s3: S3Proxy) -> None:
    same = os.urandom(2 * PART)
    for number, host in enumerate(hosts):
        (host.watched / "same.mp4").write_bytes(same)
        (host.watched / "own.mp4").write_bytes(os.urandom(PART + number))
        await host.service.start()
    recorders = [Recorder(host.watched / "growing.mp4") for host in hosts]
    await all_stored(site, 4)
    first = {one.id for one in await site.checkpoints.load_streams()}
    assert {one.host for one in await site.checkpoints.load_streams()} == {"one", "two"}
    for host in hosts:
        await host.service.kill()
    for host in hosts:
        await host.service.start()
        await asyncio.sleep(1)
    await site.valkey.flush()
    await asyncio.sleep(5)
    for host in hosts:
        await host.service.kill()
    await site.valkey.flush()
    for host in hosts:
        await host.service.start()
    for recorder in recorders:
        recorder.end()
    await all_stored(site, 6)
    streams = await site.checkpoints.load_streams()
    assert {one.id for one in streams} >= first
    assert {one.generation for one in streams} == {1}
    keys = [stored.key async for stored in site.store.list_objects("streams/")]
    assert len([key for key in keys if not key.endswith(names.METADATA_SUFFIX)]) == 6
    assert s3.calls["AbortMultipartUpload"] == 0
    assert await site.store.list_uploads("") == []
    needed = 2 * (2 * PART + SIZE) + 2 * PART + 1
    assert s3.part_bytes <= needed + 4 * PART  # what was on the wire when they were killed
    for host in hosts:
        assert await host.service.stop() == 0


async def all_stored(site: Site, count: int) -> None:
    async def are_stored() -> bool:
        streams = await site.checkpoints.load_streams()
        return len([one for one in streams if one.is_proven and one.is_final]) == count

    assert await reached(are_stored, PATIENCE_S), await site.checkpoints.load_streams()


async def test_a_shared_folder_passes_to_another_host(
    s3_server: SwiftServer, tmp_path: Path
) -> None:
    """Through another mount of it, under another host name."""
    async with on_a_disk(s3_server, tmp_path, INSTANCE_ID="one") as ground:
        site, there = ground.site, tmp_path / "there"
        await ground.disk.bind(there)
        settings = site.service.settings | {
            "WATCH_DIR": str(there),
            "INSTANCE_ID": "two",
            "PROM_PORT": str(free_port()),
        }
        second = Service("ingest", settings, tmp_path)
        try:
            await site.service.start()
            recorder = Recorder(ground.disk.point / "r.mp4")
            await uploaded_two_parts(ground)
            before = await ground.stream("r.mp4")
            await site.service.kill()
            await second.start()
            recorder.end()
            await stored(ground, "r.mp4", recorder.content)
            assert (await ground.stream("r.mp4")).id == before.id
            assert ground.s3.whole_part_bytes <= SIZE
            assert await second.stop() == 0
        finally:
            await second.kill()
            await unmount(there)
