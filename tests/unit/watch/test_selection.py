from pathlib import Path

import pytest

from cefmp4.config.ingest import DEFAULT_GLOBS
from cefmp4.watch.downloads import is_being_downloaded
from cefmp4.watch.selection import Selection


@pytest.mark.parametrize(
    "relpath",
    [
        "a.mp4",
        "CLIP.MP4",
        "cam 1/2026/a b'c\".mkv",
        "new\nline.ts",
        "invalid-\udcff.mp4",
        "emoji-\N{CLAPPER BOARD}.mov",
        "x" * 251 + ".mp4",
    ],
)
def test_recordings_are_wanted(relpath: str) -> None:
    assert Selection(DEFAULT_GLOBS).wants(relpath)


@pytest.mark.parametrize(
    "relpath",
    [
        "notes.txt",
        "mp4",
        "a.mp4.part",
        "a.mp4.tmp",
        "a.mp4.crdownload",
        "a.mp4.aria2",
        "a.mp4.AbCd1234",
        ".a.mp4.x1Y2z3",
        ".hidden.mp4",
        ".cache/a.mp4",
        "cam/.trash/old/a.mp4",
        "rec-temp-17.mp4",
        "a.mp4\n",
        "a.mp4/readme",
    ],
)
def test_temporary_and_foreign_names_are_not_wanted(relpath: str) -> None:
    assert not Selection(DEFAULT_GLOBS).wants(relpath)


def test_a_pattern_with_a_slash_is_matched_with_the_whole_path() -> None:
    selection = Selection(("cam1/*.mp4", "*.ts"))
    assert selection.wants("cam1/a.mp4")
    assert selection.wants("CAM1/A.MP4")
    assert selection.wants("cam2/a.ts")
    assert not selection.wants("cam2/a.mp4")
    assert not selection.wants("other/cam1/a.mp4")


def test_a_control_file_of_aria2_tells_of_a_download(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.touch()
    assert not is_being_downloaded(str(tmp_path), "a.mp4")
    control = tmp_path / "a.mp4.aria2"
    control.touch()
    assert is_being_downloaded(str(tmp_path), "a.mp4")
    for plant in (control.symlink_to, control.hardlink_to):  # of the recording itself
        control.unlink()
        plant(path)
        assert not is_being_downloaded(str(tmp_path), "a.mp4")
