"""NAME.aria2 says that NAME is not finished. Where somebody else put it there, it says nothing;
where nobody goes on with the download, it is said that the recording waits."""

import json
import os
import time
from pathlib import Path

import pytest
from tests.support.other_user import OTHER_UID, folder_for_all, needs_two_users, run_as_other
from tests.support.servers import SwiftServer
from tests.support.service import open_site, reached

from cefmp4.watch.folder_scanner import FolderScanner
from cefmp4.watch.scan import ScanResult, scan
from cefmp4.watch.selection import Selection
from cefmp4.watch.watcher import Watcher

PLANT = """
import os, sys
folder = sys.argv[1]
open(folder + "/file.mp4.aria2", "w").close()
os.symlink("link.mp4", folder + "/link.mp4.aria2")
os.mkdir(folder + "/folder.mp4.aria2")
os.mkfifo(folder + "/pipe.mp4.aria2")
"""
NAMES = ("file.mp4", "link.mp4", "folder.mp4", "pipe.mp4")
PATIENCE_S = 30.0
YESTERDAY = time.time() - 25 * 3600


def look_at(folder: Path) -> ScanResult:
    return scan(str(folder), Selection(("*.mp4",)))


@needs_two_users
def test_control_files_of_another_user_hide_no_recording() -> None:
    with folder_for_all() as folder:
        folder.chmod(0o1777)
        for name in NAMES:
            (folder / name).write_bytes(b"recorded")
        assert run_as_other(PLANT, str(folder)).code == 0
        result = look_at(folder)
        assert set(result.entries) == set(NAMES)
        assert result.not_downloading == set(NAMES)
        assert result.downloading == set()


@needs_two_users
@pytest.mark.integration
@pytest.mark.asyncio(loop_scope="session")
async def test_the_service_takes_the_recording_and_says_so(
    s3_server: SwiftServer, tmp_path: Path
) -> None:
    async with open_site(s3_server, tmp_path) as site:
        await site.service.start()
        control = site.watched / "camera.mp4.aria2"
        control.touch()
        os.chown(control, OTHER_UID, OTHER_UID)
        (site.watched / "camera.mp4").write_bytes(b"recorded")
        assert await site.described({"camera.mp4"}, PATIENCE_S) == set()
        assert await site.service.stop() == 0
        await site.service.start()  # its first look tells
        lines = [json.loads(line) for line in (await site.service.said()).splitlines()]
        told = [line for line in lines if ".aria2" in line["event"]]
        assert [line["file_path"] for line in told] == ["camera.mp4"]


async def test_a_download_of_its_own_user_is_waited_for_and_told_of_after_a_day(
    tmp_path: Path,
) -> None:
    """It may be paused: taken for finished, it would be stored half, and deleted perhaps."""
    (tmp_path / "paused.mp4").write_bytes(b"half")
    (tmp_path / "paused.mp4.aria2").write_bytes(b"\0\1")
    scanner = FolderScanner(Watcher(tmp_path, Selection(("*.mp4",))), interval_s=60)
    await scanner.step(0)
    assert look_at(tmp_path).downloading == {"paused.mp4"}
    assert scanner.waiting_for == ""
    for name in ("paused.mp4", "paused.mp4.aria2"):
        os.utime(tmp_path / name, (YESTERDAY, YESTERDAY))
    await scanner.step(1)
    assert scanner.entries == {}
    assert scanner.waiting_for == (
        "1 recordings wait for a download, 'paused.mp4' first: go on with the download, or remove "
        "the .aria2 file beside the recording"
    )
    (tmp_path / "paused.mp4.aria2").unlink()
    await scanner.step(2)
    assert set(scanner.entries) == {"paused.mp4"}
    assert scanner.waiting_for == ""


@pytest.mark.integration
@pytest.mark.asyncio(loop_scope="session")
async def test_the_status_says_what_waits(s3_server: SwiftServer, tmp_path: Path) -> None:
    async with open_site(s3_server, tmp_path) as site:
        for name in ("paused.mp4", "paused.mp4.aria2"):
            (site.watched / name).write_bytes(b"half")
            os.utime(site.watched / name, (YESTERDAY, YESTERDAY))
        await site.service.start()

        async def is_told() -> bool:
            notes = await site.checkpoints.load_notes()
            return any("paused.mp4" in note for note in notes.values())

        assert await reached(is_told, PATIENCE_S)
        assert not (await site.streams())
        assert await site.service.stop() == 0
