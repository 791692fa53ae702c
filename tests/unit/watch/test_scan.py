import os
import socket
from pathlib import Path

import pytest

from cefmp4.config.ingest import DEFAULT_GLOBS
from cefmp4.model.event import EventKind, StreamEvent
from cefmp4.model.stream import FileStamp
from cefmp4.recording.beneath import open_folder_to_read
from cefmp4.watch import scan as scanning
from cefmp4.watch.scan import ScanResult, compare, scan
from cefmp4.watch.selection import Selection


def look(root: Path, expected_mounts: frozenset[str] = frozenset()) -> ScanResult:
    selection = Selection(DEFAULT_GLOBS)
    return scan(str(root), selection, expected_mounts=expected_mounts)


def put(root: Path, relpath: str, text: str = "x") -> Path:
    path = root / relpath
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def stamp(inode: int, size: int = 1, mtime: int = 1, ctime: int = 1) -> FileStamp:
    return FileStamp(inode, size, mtime, ctime)


def seen(**entries: FileStamp) -> ScanResult:
    return ScanResult(entries=dict(entries))


def event(kind: EventKind, relpath: str, moved_from: str | None = None) -> StreamEvent:
    return StreamEvent(kind=kind, relpath=relpath, moved_from=moved_from)


def test_wanted_files_are_found_at_any_depth(tmp_path: Path) -> None:
    put(tmp_path, "a.mp4")
    put(tmp_path, "x/y/z/b.mkv", "12345")
    put(tmp_path, "x/notes.txt")
    put(tmp_path, ".hidden/c.mp4")
    result = look(tmp_path)
    assert set(result.entries) == {"a.mp4", "x/y/z/b.mkv"}
    assert result.entries["x/y/z/b.mkv"].size == 5
    assert result.folders == {"", "x", "x/y", "x/y/z"}
    assert result.is_whole


def test_hostile_names_survive(tmp_path: Path) -> None:
    names = [b"in\nvalid-\xff.mp4", b"sp ace'\".mp4", "\N{SNOWMAN}".encode() + b".mp4"]
    for name in (*names, b"n" * 251 + b".mp4"):
        with open(os.fsencode(tmp_path) + b"/" + name, "wb"):
            pass
    result = scan(str(tmp_path), Selection(DEFAULT_GLOBS))
    assert {os.fsencode(relpath) for relpath in result.entries} == {*names, b"n" * 251 + b".mp4"}


def test_only_regular_files_count_and_no_symlink_is_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    put(outside, "secret.mp4")
    root = tmp_path / "root"
    put(root, "real.mp4")
    (root / "link.mp4").symlink_to(outside / "secret.mp4")
    (root / "folder").symlink_to(outside)
    (root / "loop").symlink_to(root)
    (root / "folder.mp4").mkdir()
    put(root, "folder.mp4/inner.mp4")
    os.mkfifo(root / "pipe.mp4")
    with socket.socket(socket.AF_UNIX) as listener:
        os_cwd = os.getcwd()
        os.chdir(root)  # the path of a socket is limited to 108 bytes
        try:
            listener.bind("socket.mp4")
        finally:
            os.chdir(os_cwd)
    assert set(look(root).entries) == {"real.mp4", "folder.mp4/inner.mp4"}


def test_a_symlink_as_root_is_followed(tmp_path: Path) -> None:
    put(tmp_path / "real", "a.mp4")
    (tmp_path / "root").symlink_to("real")
    assert set(look(tmp_path / "root").entries) == {"a.mp4"}


def test_a_missing_root_says_nothing_about_its_files(tmp_path: Path) -> None:
    put(tmp_path, "file.mp4")
    for root in (tmp_path / "none", tmp_path / "file.mp4"):
        result = look(root)
        assert result.root_missing
        assert compare({"a.mp4": stamp(1)}, result) == []


def test_a_mount_point_without_its_file_system_is_no_empty_folder(tmp_path: Path) -> None:
    put(tmp_path, "a.mp4")
    put(tmp_path, "nas/placeholder.mp4")
    assert look(tmp_path, expected_mounts=frozenset({""})).root_missing
    result = look(tmp_path, expected_mounts=frozenset({"nas"}))
    assert result.unreadable == {"nas"}
    assert compare({"nas/b.mp4": stamp(1), "a.mp4": result.entries["a.mp4"]}, result) == []


def test_a_mount_point_is_noticed() -> None:
    if os.stat("/proc").st_dev == os.stat("/").st_dev:
        pytest.skip("2026-11: needs a mounted /proc")
    assert scan("/proc", Selection(("*.mp4",)), lambda: True).mounts == {""}


def test_a_folder_that_cannot_be_read_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "open/a.mp4")
    put(tmp_path, "closed/b.mp4")
    known = look(tmp_path).entries

    def refusing_open(root_fd: int, relpath: str) -> int:
        if relpath == "closed":
            raise PermissionError(13, "no", relpath)
        return open_folder_to_read(root_fd, relpath)

    monkeypatch.setattr(scanning, "open_folder_to_read", refusing_open)  # root may read everything
    result = look(tmp_path)
    assert result.unreadable == {"closed"}
    assert "closed" not in result.folders
    assert compare(known, result) == []


def test_a_folder_that_vanishes_during_the_scan_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "a/a.mp4")
    put(tmp_path, "b/b.mp4")
    known = look(tmp_path).entries

    def vanishing_open(root_fd: int, relpath: str) -> int:
        if relpath == "b":
            (tmp_path / "b/b.mp4").unlink()
            (tmp_path / "b").rmdir()
        return open_folder_to_read(root_fd, relpath)

    monkeypatch.setattr(scanning, "open_folder_to_read", vanishing_open)
    result = look(tmp_path)
    assert result.unreadable == set()
    assert compare(known, result) == [event(EventKind.DELETE, "b/b.mp4")]


def test_a_root_that_is_replaced_during_the_scan_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    put(root, "a.mp4")

    def replacing_open(root_fd: int, relpath: str) -> int:
        root.rename(tmp_path / "former")
        root.mkdir()
        return open_folder_to_read(root_fd, relpath)

    monkeypatch.setattr(scanning, "open_folder_to_read", replacing_open)
    assert look(root).root_missing


def test_a_stopped_scan_says_nothing_about_what_is_gone(tmp_path: Path) -> None:
    put(tmp_path, "a.mp4")
    result = scan(str(tmp_path), Selection(DEFAULT_GLOBS), lambda: True)
    assert result.was_stopped
    assert not result.root_missing
    assert compare({"b.mp4": stamp(1)}, result) == []


def test_a_download_by_aria2_is_new_only_when_it_is_done(tmp_path: Path) -> None:
    put(tmp_path, "new.mp4")
    control = put(tmp_path, "new.mp4.aria2")
    known_before = {"again.mp4": stamp(1)}
    put(tmp_path, "again.mp4")
    put(tmp_path, "again.mp4.aria2")
    result = look(tmp_path)
    assert result.downloading == {"new.mp4", "again.mp4"}
    assert compare(known_before, result) == []
    control.unlink()
    assert compare(result.entries, look(tmp_path)) == [event(EventKind.CREATE, "new.mp4")]


def test_nothing_changed_is_no_event() -> None:
    assert compare({"a": stamp(1)}, seen(a=stamp(1))) == []


def test_new_changed_and_gone() -> None:
    before = {"a": stamp(1), "b": stamp(2), "c": stamp(3)}
    after = seen(a=stamp(1), b=stamp(2, size=9), d=stamp(4))
    assert compare(before, after) == [
        event(EventKind.WRITE, "b"),
        event(EventKind.CREATE, "d"),
        event(EventKind.DELETE, "c"),
    ]


def test_only_a_new_change_time_is_a_change() -> None:
    assert compare({"a": stamp(1)}, seen(a=stamp(1, ctime=2))) == [event(EventKind.WRITE, "a")]


def test_a_rename_keeps_its_source() -> None:
    assert compare({"a": stamp(1)}, seen(b=stamp(1, ctime=5))) == [event(EventKind.MOVE, "b", "a")]


def test_an_inode_that_is_used_again_is_no_rename() -> None:
    events = compare({"a": stamp(1, size=5)}, seen(b=stamp(1, size=7)))
    assert {e.kind for e in events} == {EventKind.CREATE, EventKind.DELETE}


def test_a_hard_link_is_no_rename() -> None:
    assert compare({"a": stamp(1)}, seen(a=stamp(1), b=stamp(1))) == [event(EventKind.CREATE, "b")]


def test_a_rename_whose_former_name_was_taken_again() -> None:
    assert compare({"a": stamp(1)}, seen(a=stamp(2), b=stamp(1))) == [
        event(EventKind.MOVE, "b", "a"),
        event(EventKind.CREATE, "a"),
    ]


def test_a_chain_of_renames_frees_each_name_before_it_is_taken() -> None:
    before = {"a": stamp(1), "b": stamp(2), "c": stamp(3)}
    after = seen(b=stamp(1), c=stamp(2), d=stamp(3))
    assert compare(before, after) == [
        event(EventKind.MOVE, "d", "c"),
        event(EventKind.MOVE, "c", "b"),
        event(EventKind.MOVE, "b", "a"),
    ]


def test_exchanged_names_are_changed_files() -> None:
    events = compare({"a": stamp(1), "b": stamp(2)}, seen(a=stamp(2), b=stamp(1)))
    assert sorted(events, key=lambda e: e.relpath) == [
        event(EventKind.WRITE, "a"),
        event(EventKind.WRITE, "b"),
    ]


def test_a_rename_over_another_file_replaces_it() -> None:
    assert compare({"a": stamp(1), "b": stamp(2)}, seen(b=stamp(1))) == [
        event(EventKind.MOVE, "b", "a")
    ]
