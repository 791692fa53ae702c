"""What the doctor says of doors that are open to other users of the machine."""

import os
from pathlib import Path

import pytest
from tests.support.other_user import OTHER_UID, folder_for_all, needs_two_users

from cefmp4.config.settings import Settings
from cefmp4.doctor.exposure import examine_exposure
from cefmp4.model.diagnosis import Diagnosis, Level


def examined(folder: Path, **settings: object) -> Diagnosis:
    (found,) = examine_exposure(Settings(watch_dir=folder, **settings))  # type: ignore[arg-type]
    return found


@pytest.fixture
def watched(tmp_path: Path) -> Path:
    folder = tmp_path / "watched"
    folder.mkdir(mode=0o755)
    return folder


def test_an_ordinary_folder(watched: Path) -> None:
    assert examined(watched).level is Level.OK


@pytest.mark.parametrize("mode", [0o777, 0o1777])
@pytest.mark.parametrize("inside", ["", "cam1"])
def test_a_watched_folder_that_everybody_may_write_to(
    watched: Path, mode: int, inside: str
) -> None:
    (watched / inside).mkdir(exist_ok=True)
    (watched / inside).chmod(mode)
    found = examined(watched)
    assert found.level is Level.WARN
    assert str(watched / inside) in found.detail
    assert found.advice.startswith("chmod o-w")


def test_many_open_folders_are_one_line(watched: Path) -> None:
    for number in range(10):
        (watched / f"cam{number}").mkdir()
        (watched / f"cam{number}").chmod(0o777)
    assert "and 7 more" in examined(watched).detail


def test_a_folder_on_the_way_can_be_swapped(tmp_path: Path) -> None:
    (tmp_path / "open" / "watched").mkdir(parents=True)
    (tmp_path / "open").chmod(0o777)
    found = examined(tmp_path / "open" / "watched")
    assert found.level is Level.WARN
    assert "WATCH_DIR" in found.detail


def test_where_files_are_moved_to(watched: Path, tmp_path: Path) -> None:
    (tmp_path / "done").mkdir()
    (tmp_path / "done").chmod(0o777)
    found = examined(watched, after_upload=f"move:{tmp_path}/done")
    assert found.level is Level.WARN
    assert "AFTER_UPLOAD" in found.detail


def test_a_program_that_everybody_may_change(watched: Path, tmp_path: Path) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o777)
    found = examined(watched, ffmpeg_path=str(program))
    assert found.level is Level.WARN
    assert "FFMPEG_PATH" in found.detail


@needs_two_users
def test_the_recorders_own_folder_is_in_order() -> None:
    with folder_for_all() as folder:
        (folder / "watched").mkdir()
        os.chown(folder / "watched", OTHER_UID, OTHER_UID)
        assert examined(folder / "watched").level is Level.OK
