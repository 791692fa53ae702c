"""A folder inside the watched one that cannot be read, or is not mounted, hides its recordings:
they wait. A folder that can only be read is known without a mark."""

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest
from tests.faults.disks import disk, unmount
from tests.faults.instance import Instance
from tests.support.folders import (
    PATIENCE_S,
    SIZE,
    Ground,
    Recorder,
    on_a_disk,
    stored,
    uploaded_two_parts,
)
from tests.support.servers import SwiftServer
from tests.support.service import Service, reached

from cefmp4.model.stream import StreamState

pytestmark = [
    pytest.mark.integration,
    pytest.mark.acceptance,
    pytest.mark.faults,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(200),
]


async def uploads(ground: Ground, relpath: str) -> None:
    await ground.s3.seen("UploadPart", 2, PATIENCE_S)

    async def is_known() -> bool:
        stream = (await ground.site.streams()).get(relpath)
        return stream is not None and stream.sent_high > 0

    assert await reached(is_known, PATIENCE_S)


async def logged(service: Instance, text: str) -> None:
    async def is_logged() -> bool:
        return text in await service.said()

    assert await reached(is_logged, PATIENCE_S), await service.said()


async def test_a_mount_inside_that_is_missing_at_start(
    s3_server: SwiftServer, tmp_path: Path
) -> None:
    async with on_a_disk(s3_server, tmp_path) as ground:
        site, s3 = ground.site, ground.s3
        async with disk(ground.disk.point / "nas", image=tmp_path / "inner") as inner:
            await site.service.start()
            recorder = Recorder(inner.point / "r.mp4")
            await uploads(ground, "nas/r.mp4")
            await asyncio.sleep(2)  # until a full look has seen the mount
            before = await ground.stream("nas/r.mp4")
            await site.service.kill()
            recorder.end()
            await inner.pull()
            await site.service.start()
            await logged(site.service, "cannot be seen now: they wait")
            now = await ground.stream("nas/r.mp4")
            assert (now.state, now.upload_id) == (before.state, before.upload_id)
            await inner.plug_in()
            await stored(ground, "nas/r.mp4", recorder.content)
            assert (await ground.stream("nas/r.mp4")).id == before.id
            assert s3.whole_part_bytes <= SIZE
            assert s3.calls["AbortMultipartUpload"] == 0
            assert await site.service.stop() == 0


async def test_a_mount_inside_that_goes_in_mid_upload(
    s3_server: SwiftServer, tmp_path: Path
) -> None:
    async with on_a_disk(s3_server, tmp_path) as ground:
        site, s3 = ground.site, ground.s3
        async with disk(ground.disk.point / "nas", image=tmp_path / "inner") as inner:
            await site.service.start()
            recorder = Recorder(inner.point / "r.mp4")
            await uploads(ground, "nas/r.mp4")
            before = await ground.stream("nas/r.mp4")
            await inner.pull()
            await asyncio.sleep(4)  # longer than a file that is gone has
            now = await ground.stream("nas/r.mp4")
            assert (now.state, now.upload_id) == (before.state, before.upload_id)
            await inner.plug_in()
            recorder.end()
            await stored(ground, "nas/r.mp4", recorder.content)
            assert (await ground.stream("nas/r.mp4")).id == before.id
            assert s3.whole_part_bytes <= SIZE
            assert s3.calls["AbortMultipartUpload"] == 0
            assert await site.service.stop() == 0
            assert not [error for error in site.errors() if "exception" in error]


async def test_a_folder_that_turns_unreadable_and_back(
    s3_server: SwiftServer, tmp_path: Path
) -> None:
    """As a user whom file modes bind."""
    async with on_a_disk(s3_server, tmp_path) as ground:
        site, s3 = ground.site, ground.s3
        confined = Instance(
            "confined",
            site.service.settings | {"PYTHONPATH": os.getcwd()},
            ground.home,
            command=("tests.faults.confined", "plain-user", "ingest"),
        )
        folder = ground.disk.point / "cam"
        folder.mkdir()
        try:
            await lose_sight(ground, confined, folder)
        finally:
            await confined.end()
        assert s3.whole_part_bytes <= SIZE
        assert s3.calls["AbortMultipartUpload"] == 0
        assert "Traceback" not in await confined.said()


async def lose_sight(ground: Ground, service: Instance, folder: Path) -> None:
    await service.start()
    recorder = Recorder(folder / "r.mp4")
    await uploads(ground, "cam/r.mp4")
    before = await ground.stream("cam/r.mp4")
    os.chmod(folder, 0)
    await asyncio.sleep(3)
    await service.kill()
    await service.start()
    await logged(service, "cannot be seen now: they wait")
    now = await ground.stream("cam/r.mp4")
    assert (now.state, now.upload_id) == (before.state, before.upload_id)
    os.chmod(folder, 0o755)
    recorder.end()
    await stored(ground, "cam/r.mp4", recorder.content)
    assert (await ground.stream("cam/r.mp4")).id == before.id
    assert await service.stop() == 0


async def test_a_read_only_mount_under_changing_host_names(
    s3_server: SwiftServer, tmp_path: Path
) -> None:
    """As a container sees it that is made anew for each start."""
    async with on_a_disk(s3_server, tmp_path) as ground:
        site, there = ground.site, tmp_path / "there"
        await ground.disk.bind(there, read_only=True)
        settings = site.service.settings | {"WATCH_DIR": str(there)}
        first, second = (
            Service("ingest", settings | {"INSTANCE_ID": name}, tmp_path) for name in ("c1", "c2")
        )
        try:
            await first.start()
            recorder = Recorder(ground.disk.point / "r.mp4")
            await uploaded_two_parts(ground)
            before = await ground.stream("r.mp4")
            assert before.folder.startswith("fs-")
            await first.kill()
            await second.start()
            recorder.end()
            await stored(ground, "r.mp4", recorder.content)
            assert (await ground.stream("r.mp4")).id == before.id
            assert ground.s3.whole_part_bytes <= SIZE
            assert "set WATCH_DIR_ID" in await second.said()
            assert await second.stop() == 0
        finally:
            await first.kill()
            await second.kill()
            await unmount(there)


async def test_records_of_an_older_version_are_taken_over(
    s3_server: SwiftServer, tmp_path: Path
) -> None:
    """They name no folder; and of those of another host nothing is touched."""
    async with on_a_disk(s3_server, tmp_path) as ground:
        site, checkpoints = ground.site, ground.site.checkpoints
        await site.service.start()
        (ground.disk.point / "done.mp4").write_bytes(os.urandom(1000))
        await stored_at_all(ground, "done.mp4")
        recorder = Recorder(ground.disk.point / "r.mp4")
        await uploaded_two_parts(ground)
        assert await site.service.stop() == 0
        streams = await checkpoints.load_streams()
        for stream in await checkpoints.adopt("older", streams):
            assert (await checkpoints.adopt("", [stream]))[0].folder == ""
        foreign = replace(
            streams[0],
            id="of-another",
            relpath="elsewhere.mp4",
            folder="",
            key="theirs",
            state=StreamState.UPLOADING,
            upload_id="their-upload",
        )
        lease = await checkpoints.claim(foreign, "another")
        assert lease is not None
        await checkpoints.release(lease)
        recorder.end()
        await site.service.start()
        await stored(ground, "r.mp4", recorder.content)
        after = {one.relpath: one for one in await checkpoints.load_streams()}
        for stream in streams:
            assert after[stream.relpath].id == stream.id
            assert after[stream.relpath].folder
        assert {one.generation for one in after.values()} == {1}
        assert after["elsewhere.mp4"].state is StreamState.UPLOADING
        assert ground.s3.whole_part_bytes <= SIZE
        assert await site.service.stop() == 0


async def stored_at_all(ground: Ground, relpath: str) -> None:
    async def is_known() -> bool:
        stream = (await ground.site.streams()).get(relpath)
        return stream is not None and stream.is_final

    assert await reached(is_known, PATIENCE_S)
