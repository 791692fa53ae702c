"""The kernel's own events, through the observer's thread, and what they mean to us."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cefmp4.config.ingest import DEFAULT_GLOBS
from cefmp4.model.event import EventKind, StreamEvent
from cefmp4.watch import inotify_calls as kernel
from cefmp4.watch import walk
from cefmp4.watch.inotify import FolderObserver
from cefmp4.watch.scan import scan
from cefmp4.watch.selection import Selection
from cefmp4.watch.watched_tree import Folder

CREATE, CLOSE, DELETE = EventKind.CREATE, EventKind.CLOSE, EventKind.DELETE


@dataclass
class Heard:
    events: list[StreamEvent] = field(default_factory=list)
    overflows: list[None] = field(default_factory=list)
    folders: list[None] = field(default_factory=list)

    def observer(self, root: Path, most_folders: int = walk.MOST_FOLDERS) -> FolderObserver:
        return FolderObserver(
            str(root),
            Selection(DEFAULT_GLOBS),
            tell=self.events.append,
            overflow=lambda: self.overflows.append(None),
            folder_moved=lambda _: self.folders.append(None),
            most_folders=most_folders,
        )

    def has(self, kind: EventKind, relpath: str) -> bool:
        return StreamEvent(kind=kind, relpath=relpath) in self.events

    @property
    def pairs(self) -> list[tuple[EventKind, str]]:
        return [(event.kind, event.relpath) for event in self.events]


@pytest.fixture
def heard() -> Heard:
    return Heard()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.005)


def look(observer: FolderObserver, root: Path) -> None:
    observer.begin_look()
    scan(str(root), Selection(DEFAULT_GLOBS), watch=observer.watch)
    observer.end_look()


def watched(observer: FolderObserver) -> set[str]:
    def paths(folder: Folder, prefix: str) -> Iterator[str]:
        for name, below in folder.below.items():
            yield prefix + name
            yield from paths(below, f"{prefix}{name}/")

    with observer._lock:
        root = observer._tree.root
        return {"", *paths(root, "")} if root else set()


@contextmanager
def watching(
    root: Path, heard: Heard, most_folders: int = walk.MOST_FOLDERS
) -> Iterator[FolderObserver]:
    observer = heard.observer(root, most_folders)
    observer.start()
    look(observer, root)
    try:
        yield observer
    finally:
        observer.stop()


def test_events_of_wanted_files_pass_and_of_others_do_not(tmp_path: Path, heard: Heard) -> None:
    (tmp_path / "cam").mkdir()
    with watching(tmp_path, heard):
        for name in ("a.txt", ".a.mp4", "a.mp4.part", "a.mp4"):
            (tmp_path / "cam" / name).touch()
            (tmp_path / "cam" / name).unlink()
        wait_for(lambda: heard.has(DELETE, "cam/a.mp4"))
    assert heard.pairs == [(kind, "cam/a.mp4") for kind in (CREATE, CLOSE, DELETE)]


def test_symlinks_folders_and_pipes_are_no_recordings(tmp_path: Path, heard: Heard) -> None:
    with watching(tmp_path, heard):
        (tmp_path / "link.mp4").symlink_to("/etc/hosts")
        (tmp_path / "folder.mp4").mkdir()
        os.mkfifo(tmp_path / "pipe.mp4")
        (tmp_path / "last.mp4").touch()
        wait_for(lambda: heard.has(CLOSE, "last.mp4"))
    assert {event.relpath for event in heard.events} == {"last.mp4"}


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("a.mp4", "b.mp4", StreamEvent(kind=EventKind.MOVE, relpath="b.mp4", moved_from="a.mp4")),
        ("a.mp4.part", "a.mp4", StreamEvent(kind=CREATE, relpath="a.mp4")),
        ("a.mp4", "a.mp4.tmp", StreamEvent(kind=DELETE, relpath="a.mp4")),
        ("a.tmp", "b.tmp", None),
    ],
)
def test_a_rename_is_judged_by_both_names(
    tmp_path: Path, heard: Heard, source: str, target: str, expected: StreamEvent | None
) -> None:
    (tmp_path / source).touch()
    with watching(tmp_path, heard):
        (tmp_path / source).rename(tmp_path / target)
        (tmp_path / "last.mp4").touch()
        wait_for(lambda: heard.has(CREATE, "last.mp4"))
    assert heard.events[:-1][:1] == ([expected] if expected else heard.events[:-1][:1])
    if expected is None:
        assert {event.relpath for event in heard.events} == {"last.mp4"}


def test_a_file_that_is_moved_out_is_gone_before_its_name_is_new(
    tmp_path: Path, heard: Heard
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "a.mp4").touch()
    (root / "b.mp4").touch()
    with watching(root, heard):
        (root / "a.mp4").rename(tmp_path / "a.mp4")
        (root / "a.mp4").touch()
        (root / "b.mp4").rename(tmp_path / "b.mp4")
        wait_for(lambda: heard.has(DELETE, "b.mp4"))
    a = [kind for kind, relpath in heard.pairs if relpath == "a.mp4"]
    assert a == [DELETE, CREATE, CLOSE]


def test_a_file_that_is_moved_in_is_new(tmp_path: Path, heard: Heard) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "a.mp4").touch()
    with watching(root, heard):
        (tmp_path / "a.mp4").rename(root / "a.mp4")
        wait_for(lambda: heard.pairs == [(CREATE, "a.mp4")])


def test_a_download_by_aria2_is_closed_when_its_control_file_goes(
    tmp_path: Path, heard: Heard
) -> None:
    control = tmp_path / "a.mp4.aria2"
    control.touch()
    with watching(tmp_path, heard):
        (tmp_path / "a.mp4").touch()
        control.unlink()
        wait_for(lambda: (CLOSE, "a.mp4") in heard.pairs)


def test_files_of_a_new_tree_are_told_and_its_folders_watched(tmp_path: Path, heard: Heard) -> None:
    with watching(tmp_path, heard) as observer:
        (tmp_path / "x/y/z").mkdir(parents=True)
        (tmp_path / "x/y/z/a.mp4").touch()
        wait_for(lambda: "x/y/z" in watched(observer))
        wait_for(lambda: (CREATE, "x/y/z/a.mp4") in heard.pairs)
        (tmp_path / "x/y/z/b.mp4").touch()
        wait_for(lambda: heard.has(CLOSE, "x/y/z/b.mp4"))


def test_a_folder_that_moves_takes_all_below_it_along(tmp_path: Path, heard: Heard) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "into").mkdir()
    with watching(tmp_path, heard) as observer:
        (tmp_path / "a").rename(tmp_path / "into/c")
        wait_for(lambda: watched(observer) == {"", "into", "into/c", "into/c/b"})
        wait_for(lambda: len(heard.folders) == 1)
        (tmp_path / "into/c/b/r.mp4").touch()
        wait_for(lambda: heard.has(CLOSE, "into/c/b/r.mp4"))


def test_a_folder_that_is_moved_out_is_watched_no_more(tmp_path: Path, heard: Heard) -> None:
    root = tmp_path / "root"
    (root / "a/b").mkdir(parents=True)
    with watching(root, heard) as observer:
        (root / "a").rename(tmp_path / "a")
        wait_for(lambda: watched(observer) == {""})
        assert heard.folders
        (tmp_path / "a/b/r.mp4").touch()
        (root / "last.mp4").touch()
        wait_for(lambda: heard.has(CLOSE, "last.mp4"))
    assert {event.relpath for event in heard.events} == {"last.mp4"}


def test_a_folder_that_is_hidden_and_shown_again(tmp_path: Path, heard: Heard) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    with watching(tmp_path, heard) as observer:
        (tmp_path / "a").rename(tmp_path / ".a")
        wait_for(lambda: watched(observer) == {""})
        (tmp_path / ".a/b/r.mp4").touch()
        (tmp_path / ".a").rename(tmp_path / "c")
        wait_for(lambda: watched(observer) == {"", "c", "c/b"})
        wait_for(lambda: (CREATE, "c/b/r.mp4") in heard.pairs)


def test_a_folder_that_is_removed_is_told(tmp_path: Path, heard: Heard) -> None:
    (tmp_path / "a").mkdir()
    with watching(tmp_path, heard) as observer:
        (tmp_path / "a").rmdir()
        wait_for(lambda: len(heard.folders) == 1)
        assert watched(observer) == {""}


def test_lost_events_are_told_and_the_next_look_watches_all_folders_again(
    tmp_path: Path, heard: Heard
) -> None:
    with watching(tmp_path, heard) as observer:
        observer._lock.acquire()  # the thread does not get to run
        try:
            (tmp_path / "early").mkdir()
            limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
            names = [tmp_path / "1.tmp", tmp_path / "2.tmp"]
            for _ in range(limit // 2 + 100):
                for name in names:  # two by turns: the kernel merges what is alike
                    os.close(os.open(name, os.O_WRONLY | os.O_CREAT, 0o644))
            (tmp_path / "late/deep").mkdir(parents=True)
            (tmp_path / "early").rmdir()
        finally:
            observer._lock.release()
        wait_for(lambda: bool(heard.overflows))
        look(observer, tmp_path)
        assert watched(observer) == {"", "late", "late/deep"}


def test_a_folder_that_lay_too_deep_and_is_moved_up_is_watched_at_the_next_look(
    tmp_path: Path, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walk, "MOST_LEVELS", 2)
    (tmp_path / "a/b/c").mkdir(parents=True)
    with watching(tmp_path, heard) as observer:
        assert watched(observer) == {"", "a", "a/b"}
        (tmp_path / "a/b").rename(tmp_path / "b")
        wait_for(lambda: watched(observer) == {"", "a", "b"})
        look(observer, tmp_path)
        wait_for(lambda: watched(observer) == {"", "a", "b", "b/c"})
        (tmp_path / "b/c/r.mp4").touch()
        wait_for(lambda: heard.has(CLOSE, "b/c/r.mp4"))


def test_a_root_that_cannot_be_watched_leaves_nothing_behind(tmp_path: Path, heard: Heard) -> None:
    observer = heard.observer(tmp_path / "none")
    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    with pytest.raises(FileNotFoundError):
        observer.start()
    assert not observer.is_alive
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == before


def test_an_observer_ends_with_its_root(tmp_path: Path, heard: Heard) -> None:
    root = tmp_path / "root"
    root.mkdir()
    with watching(root, heard) as observer:
        root.rmdir()
        wait_for(lambda: not observer.is_alive)
        assert heard.folders


def test_names_of_any_bytes_are_read_from_the_kernel() -> None:
    name = b"in\nvalid-\xff.mp4"
    data = kernel._HEAD.pack(7, kernel.IN_CREATE, 0, 32) + name.ljust(32, b"\0")
    first, second = kernel.parse(data + kernel._HEAD.pack(-1, kernel.IN_Q_OVERFLOW, 0, 0))
    assert (first.watch, os.fsencode(first.name)) == (7, name)
    assert (second.watch, second.mask) == (-1, kernel.IN_Q_OVERFLOW)


def test_no_more_folders_are_watched_than_the_limit_allows(tmp_path: Path, heard: Heard) -> None:
    for number in range(6):
        (tmp_path / f"{number}").mkdir()
    with watching(tmp_path, heard, 5) as observer:
        assert len(watched(observer)) == 5
        (tmp_path / "new").mkdir()
        (tmp_path / "last.mp4").touch()
        wait_for(lambda: heard.has(CLOSE, "last.mp4"))
        assert len(watched(observer)) == 5
