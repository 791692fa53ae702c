"""What watchdog's events mean to us, without a kernel."""

import logging
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from watchdog.events import (
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileMovedEvent,
    FileSystemEvent,
)

from cefmp4.config import DEFAULT_GLOBS
from cefmp4.model.event import EventKind, StreamEvent
from cefmp4.watch.inotify import Callbacks, FolderObserver
from cefmp4.watch.selection import Selection


@dataclass
class Heard:
    events: list[StreamEvent] = field(default_factory=list)
    overflows: list[None] = field(default_factory=list)
    folders: list[None] = field(default_factory=list)

    @property
    def callbacks(self) -> Callbacks:
        return Callbacks(
            event=self.events.append,
            overflow=lambda: self.overflows.append(None),
            folder_moved=lambda: self.folders.append(None),
        )


@pytest.fixture
def heard() -> Heard:
    return Heard()


def tell(root: Path, heard: Heard, *events: FileSystemEvent) -> None:
    observer = FolderObserver(str(root), Selection(root, DEFAULT_GLOBS), heard.callbacks)
    for event in events:
        observer._handler.dispatch(event)


def test_events_of_wanted_files_pass(tmp_path: Path, heard: Heard) -> None:
    folder = tmp_path / "cam"
    folder.mkdir()
    (folder / "a.mp4").touch()
    path = str(folder / "a.mp4")
    tell(tmp_path, heard, FileCreatedEvent(path), FileClosedEvent(path), FileDeletedEvent(path))
    assert heard.events == [
        StreamEvent(kind=EventKind.CREATE, relpath="cam/a.mp4"),
        StreamEvent(kind=EventKind.CLOSE, relpath="cam/a.mp4"),
        StreamEvent(kind=EventKind.DELETE, relpath="cam/a.mp4"),
    ]


def test_events_of_other_files_do_not(tmp_path: Path, heard: Heard) -> None:
    for name in ("a.txt", ".a.mp4", "a.mp4.part"):
        path = str(tmp_path / name)
        tell(tmp_path, heard, FileCreatedEvent(path), FileClosedEvent(path), FileDeletedEvent(path))
    assert heard.events == []


def test_symlinks_and_folders_are_no_recordings(tmp_path: Path, heard: Heard) -> None:
    (tmp_path / "link.mp4").symlink_to("/etc/hosts")
    (tmp_path / "folder.mp4").mkdir()
    for name in ("link.mp4", "folder.mp4"):
        tell(tmp_path, heard, FileCreatedEvent(str(tmp_path / name)))
    tell(tmp_path, heard, FileMovedEvent(str(tmp_path / "a.mp4"), str(tmp_path / "link.mp4")))
    assert heard.events == []


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("a.mp4", "b.mp4", StreamEvent(kind=EventKind.MOVE, relpath="b.mp4", moved_from="a.mp4")),
        ("a.mp4.part", "a.mp4", StreamEvent(kind=EventKind.CREATE, relpath="a.mp4")),
        ("a.mp4", "a.mp4.tmp", StreamEvent(kind=EventKind.DELETE, relpath="a.mp4")),
        ("a.tmp", "b.tmp", None),
    ],
)
def test_a_rename_is_judged_by_both_names(
    tmp_path: Path, heard: Heard, source: str, target: str, expected: StreamEvent | None
) -> None:
    tell(tmp_path, heard, FileMovedEvent(str(tmp_path / source), str(tmp_path / target)))
    assert heard.events == ([expected] if expected else [])


def test_a_download_by_aria2_is_closed_when_its_control_file_goes(
    tmp_path: Path, heard: Heard
) -> None:
    path, control = tmp_path / "a.mp4", tmp_path / "a.mp4.aria2"
    path.touch()
    control.touch()
    tell(tmp_path, heard, FileCreatedEvent(str(path)), FileClosedEvent(str(path)))
    assert heard.events == []
    control.unlink()
    tell(tmp_path, heard, FileDeletedEvent(str(control)))
    assert heard.events == [StreamEvent(kind=EventKind.CLOSE, relpath="a.mp4")]


def test_a_folder_that_moves_or_goes_is_told_once(tmp_path: Path, heard: Heard) -> None:
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    tell(tmp_path, heard, DirMovedEvent(a, b), DirMovedEvent(a, b, is_synthetic=True))
    assert len(heard.folders) == 1
    tell(tmp_path, heard, DirDeletedEvent(b))
    assert len(heard.folders) == 2


def test_an_overflow_is_read_from_the_log_while_it_runs(
    tmp_path: Path, heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    log = logging.getLogger("watchdog.observers.inotify_c")
    observer = FolderObserver(str(tmp_path), Selection(tmp_path, DEFAULT_GLOBS), heard.callbacks)
    observer.start()
    try:
        assert observer.is_alive
        log.warning("something else")
        log.warning("Inotify queue overflowed; filesystem events were lost")
    finally:
        observer.stop()
    log.warning("Inotify queue overflowed; filesystem events were lost")
    assert len(heard.overflows) == 1
    assert not observer.is_alive


def test_it_knows_which_folders_are_watched(tmp_path: Path, heard: Heard) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    observer = FolderObserver(str(tmp_path), Selection(tmp_path, DEFAULT_GLOBS), heard.callbacks)
    assert observer.watched_folders() is None
    observer.start()
    try:
        assert observer.watched_folders() == frozenset({"", "a", "a/b"})
    finally:
        observer.stop()


def test_a_root_that_cannot_be_watched_leaves_no_thread(tmp_path: Path, heard: Heard) -> None:
    root = tmp_path / "none"
    observer = FolderObserver(str(root), Selection(root, DEFAULT_GLOBS), heard.callbacks)
    with pytest.raises(FileNotFoundError):
        observer.start()
    assert not observer.is_alive
