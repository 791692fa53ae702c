"""What shows which folder this is."""

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.support.other_user import OTHER_UID, folder_for_all, needs_two_users

from cefmp4.recording.stamps import birth_ns
from cefmp4.watch import folder_marks
from cefmp4.watch.folder_marks import ATTRIBUTE, MARK_FILE, leave_mark, look_at
from cefmp4.watch.scan import scan
from cefmp4.watch.selection import Selection


@pytest.fixture(params=["attribute", "file"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    if request.param == "file":
        monkeypatch.setattr(os, "setxattr", _refuse)
    else:
        try:
            os.setxattr(tmp_path, ATTRIBUTE + ".test", b"x")
        except OSError:
            pytest.skip("2026-11: no user attributes on this file system")
    return str(request.param)


def _refuse(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOTSUP, "no attributes here")


def test_a_mark_is_left_once_and_goes_with_the_folder(way: str, tmp_path: Path) -> None:
    root = tmp_path / "w"
    root.mkdir()
    assert look_at(str(root)).marks == ()
    assert leave_mark(str(root), "mine") == "mine"
    assert leave_mark(str(root), "another") == "mine"
    root.rename(tmp_path / "moved")
    assert look_at(str(tmp_path / "moved")).marks == ("mine",)
    assert (tmp_path / "moved" / MARK_FILE).exists() is (way == "file")


def test_all_who_start_together_agree(way: str, tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        marks = list(
            pool.map(lambda number: leave_mark(str(tmp_path), f"m{number}"), range(8), chunksize=1)
        )
    assert len(set(marks)) == 1
    assert look_at(str(tmp_path)).marks == (marks[0],)
    assert [name for name in os.listdir(tmp_path) if name != MARK_FILE] == []


def test_a_file_where_it_cannot_be_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "setxattr", _refuse)
    monkeypatch.setattr(os, "link", _refuse)
    assert leave_mark(str(tmp_path), "mine") == "mine"
    assert os.listdir(tmp_path) == [MARK_FILE]


def test_the_file_is_no_recording_and_leaves_the_folder_empty(tmp_path: Path) -> None:
    (tmp_path / MARK_FILE).write_text("mine")
    assert look_at(str(tmp_path)).is_bare
    assert scan(str(tmp_path), Selection(("*",))).entries == {}
    (tmp_path / "anything").touch()
    assert not look_at(str(tmp_path)).is_bare


@pytest.mark.parametrize("text", ["", "a b", "../x", "\N{SNOWMAN}", "x" * 65, "\x1b[31m"])
def test_what_is_no_mark(text: str, tmp_path: Path) -> None:
    (tmp_path / MARK_FILE).write_text(text)
    assert look_at(str(tmp_path)).marks == ()
    (tmp_path / MARK_FILE).unlink()
    (tmp_path / MARK_FILE).symlink_to("/etc/hostname")
    assert look_at(str(tmp_path)).marks == ()


def test_without_a_mark_the_file_system_tells_folders_apart(tmp_path: Path) -> None:
    prints = set()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        look = look_at(str(tmp_path / name))
        assert look.print == look_at(str(tmp_path / name)).print
        prints.add(look.print)
    (tmp_path / "a").rename(tmp_path / "c")
    assert look_at(str(tmp_path / "c")).print in prints
    assert len(prints) == 2


def test_a_folder_made_anew_with_the_same_inode_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = look_at(str(tmp_path))
    if not look.is_print_safe:
        pytest.skip("2026-11: this file system does not tell when a folder was made")
    monkeypatch.setattr(folder_marks, "birth_ns", lambda fd: birth_ns(fd) + 1)
    assert look_at(str(tmp_path)).print != look.print


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        look_at(str(tmp_path / "none"))


@needs_two_users
def test_a_folder_that_may_be_listed_and_not_entered_is_an_error() -> None:
    with folder_for_all() as folder:
        (folder / "listed").mkdir()
        (folder / "listed").chmod(0o744)
        os.seteuid(OTHER_UID)
        try:
            with pytest.raises(PermissionError):
                look_at(str(folder / "listed"))
        finally:
            os.seteuid(0)
