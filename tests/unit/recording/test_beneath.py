"""Names are looked up without following links, and nothing is overwritten."""

import os
from pathlib import Path

import pytest

from cefmp4.recording import beneath
from cefmp4.recording.beneath import device_near, folder_of, look_up, rename_to_free


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/c").write_text("here")
    (tmp_path / "link").symlink_to("a")
    return tmp_path


def test_a_name_below_folders(root: Path) -> None:
    assert look_up(str(root), "a/b/c").st_size == len("here")
    assert look_up(str(root / "link"), "b/c").st_size == len("here")  # the root may be a link


@pytest.mark.parametrize(
    "relpath", ["link/b/c", "a/b/c/d", "a/../a/b/c", "a//b/c", "a/./b/c", "x/y"]
)
def test_a_way_that_is_not_gone(root: Path, relpath: str) -> None:
    with pytest.raises((FileNotFoundError, NotADirectoryError)):
        look_up(str(root), relpath)


def test_folders_are_made_where_there_is_no_link(root: Path) -> None:
    with folder_of(str(root), "a/new/one/file", makes=True) as (folder, name):
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=folder))
    assert (root / "a/new/one/file").exists()
    with (
        pytest.raises(NotADirectoryError),
        folder_of(str(root), "link/new/file", makes=True),
    ):
        pass
    assert not (root / "a/new/file").exists()


def test_the_device_of_a_folder_that_went(root: Path) -> None:
    assert device_near(str(root), "a/gone/too") == root.stat().st_dev
    assert device_near(str(root), "") == root.stat().st_dev


@pytest.mark.parametrize("way", ["one call", "by a link", "after a look"])
def test_a_rename_overwrites_nothing(root: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if way != "one call":
        monkeypatch.setattr(beneath, "_renameat2", None)
    if way == "after a look":

        def refuse(*args: object, **words: object) -> None:
            raise PermissionError(1, "no links here")

        monkeypatch.setattr(os, "link", refuse)
    (root / "a/taken").write_text("stays")
    with folder_of(str(root), "a/b/c") as (folder, name), folder_of(str(root), "a/d") as (up, free):
        with pytest.raises(FileExistsError):
            rename_to_free(folder, name, up, "taken")
        rename_to_free(folder, name, up, free)
    assert (root / "a/taken").read_text() == "stays"
    assert (root / "a/d").read_text() == "here"
    assert not (root / "a/b/c").exists()
