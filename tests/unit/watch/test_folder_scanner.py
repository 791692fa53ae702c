import asyncio
import os
from pathlib import Path

import pytest

from cefmp4 import metrics
from cefmp4.config.ingest import DEFAULT_GLOBS, WatchMode
from cefmp4.model.event import EventKind, StreamEvent
from cefmp4.model.stream import FileStamp
from cefmp4.recording.beneath import open_folder_to_read
from cefmp4.watch import scan as scanning
from cefmp4.watch.folder_scanner import EVENTS_COST, POLLING_COST, FolderScanner
from cefmp4.watch.rescans import RescanCause
from cefmp4.watch.selection import Selection
from cefmp4.watch.watcher import Watcher


@pytest.fixture
def folder(tmp_path: Path) -> Watcher:
    """That does not watch: only looks tell of it, and what a test lets it be told."""
    root = tmp_path / "watched"
    root.mkdir()
    return Watcher(root, Selection(DEFAULT_GLOBS))


def kinds(events: list[StreamEvent]) -> list[tuple[EventKind, str]]:
    return [(event.kind, event.relpath) for event in events]


def rescans_counted(cause: RescanCause) -> float:
    return metrics.REGISTRY.get_sample_value("cefmp4_rescans_total", {"cause": cause}) or 0.0


async def test_the_first_look_reports_everything_the_next_only_differences(
    folder: Watcher,
) -> None:
    root = Path(folder.root)
    scanner = FolderScanner(folder, interval_s=60)
    (root / "a.mp4").write_text("a")
    assert kinds(await scanner.step(0)) == [(EventKind.CREATE, "a.mp4")]
    assert await scanner.step(1) == []
    (root / "a.mp4").write_text("longer")
    (root / "b.mp4").write_text("b")
    assert sorted(kinds(await scanner.step(2))) == [
        (EventKind.CREATE, "b.mp4"),
        (EventKind.WRITE, "a.mp4"),
    ]
    (root / "b.mp4").unlink()
    assert kinds(await scanner.step(3)) == [(EventKind.DELETE, "b.mp4")]
    assert set(scanner.entries) == {"a.mp4"}


async def test_what_was_known_before_the_start_is_not_new(folder: Watcher) -> None:
    path = Path(folder.root) / "a.mp4"
    path.touch()
    facts = path.stat()
    stamp = FileStamp(facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
    scanner = FolderScanner(folder, interval_s=60)
    scanner.remember({"a.mp4": stamp, "gone.mp4": stamp})
    assert kinds(await scanner.step(0)) == [(EventKind.DELETE, "gone.mp4")]


async def test_a_missing_root_deletes_nothing(folder: Watcher) -> None:
    root = Path(folder.root)
    elsewhere = root.with_name("elsewhere")
    (root / "a.mp4").touch()
    scanner = FolderScanner(folder, interval_s=60)
    await scanner.step(0)
    os.rename(root, elsewhere)
    assert await scanner.step(1) == []
    os.rename(elsewhere, root)
    assert await scanner.step(2) == []
    assert set(scanner.entries) == {"a.mp4"}


async def test_files_in_unreadable_folders_stay_known(
    folder: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(folder.root)
    (root / "in").mkdir()
    (root / "in/a.mp4").touch()
    scanner = FolderScanner(folder, interval_s=60)
    await scanner.step(0)

    def refusing_open(root_fd: int, relpath: str) -> int:
        if relpath == "in":
            raise PermissionError(13, "no", relpath)
        return open_folder_to_read(root_fd, relpath)

    with monkeypatch.context() as patched:
        patched.setattr(scanning, "open_folder_to_read", refusing_open)
        assert await scanner.step(1) == []
        assert set(scanner.entries) == {"in/a.mp4"}
    assert await scanner.step(2) == []


async def test_what_only_events_told_of_and_is_not_there_is_gone(folder: Watcher) -> None:
    root = Path(folder.root)
    elsewhere = root.with_name("elsewhere")
    scanner = FolderScanner(folder, interval_s=60)
    (root / "b.mp4").touch()
    folder._told = {"moved/away/a.mp4", "b.mp4"}
    os.rename(root, elsewhere)
    assert await scanner.step(0) == []
    os.rename(elsewhere, root)
    assert kinds(await scanner.step(1)) == [
        (EventKind.CREATE, "b.mp4"),
        (EventKind.DELETE, "moved/away/a.mp4"),
    ]
    assert await scanner.step(2) == []


async def test_polling_believes_in_a_loss_at_the_second_look(folder: Watcher) -> None:
    root = Path(folder.root)
    folder._mode = WatchMode.POLLING
    (root / "a.mp4").write_text("a")
    (root / "b.mp4").write_text("bb")
    scanner = FolderScanner(folder, interval_s=60)
    await scanner.step(0)
    (root / "a.mp4").unlink()
    (root / "b.mp4").rename(root / "b.elsewhere")
    assert await scanner.step(1) == []
    (root / "b.elsewhere").rename(root / "c.mp4")
    assert await scanner.step(2) == [
        StreamEvent(kind=EventKind.MOVE, relpath="c.mp4", moved_from="b.mp4"),
        StreamEvent(kind=EventKind.DELETE, relpath="a.mp4"),
    ]
    assert await scanner.step(3) == []
    assert set(scanner.entries) == {"c.mp4"}


async def test_the_interval_follows_the_cost_of_a_look(folder: Watcher) -> None:
    scanner = FolderScanner(folder, interval_s=60)
    await scanner.step(0)
    assert scanner.interval_s == max(60, EVENTS_COST * scanner._cost_s)
    scanner._cost_s = 0.5
    assert scanner.interval_s == 100
    folder._mode = WatchMode.POLLING
    assert scanner.interval_s == 0.5 * POLLING_COST
    scanner._cost_s = 0.001
    assert scanner.interval_s == 1.0


async def test_each_look_is_counted_by_its_cause(folder: Watcher) -> None:
    causes = (RescanCause.START, RescanCause.OVERFLOW, RescanCause.INTERVAL)
    before = [rescans_counted(cause) for cause in causes]
    scanner = FolderScanner(folder, interval_s=60)
    await scanner.step(0)
    folder.rescans.request(RescanCause.OVERFLOW)
    await scanner.step(1)
    await scanner.step(2)
    assert [rescans_counted(cause) for cause in causes] == [count + 1 for count in before]


async def test_a_wish_brings_the_next_look_forward(folder: Watcher) -> None:
    root = Path(folder.root)
    delivered: asyncio.Queue[list[StreamEvent]] = asyncio.Queue()
    scanner = FolderScanner(folder, interval_s=3600, min_pause_s=0.01)
    (root / "a.mp4").touch()
    task = asyncio.create_task(scanner.run(delivered.put))
    async with asyncio.timeout(10):
        assert kinds(await delivered.get()) == [(EventKind.CREATE, "a.mp4")]
        (root / "b.mp4").touch()
        folder.rescans.request(RescanCause.OVERFLOW)
        assert kinds(await delivered.get()) == [(EventKind.CREATE, "b.mp4")]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_names_that_only_events_told_of_go_along_with_their_folder(
    folder: Watcher,
) -> None:
    scanner = FolderScanner(folder, interval_s=1)
    await scanner.step(1)
    root = Path(folder.root)
    (root / "b").mkdir()
    (root / "b" / "one.mp4").write_text("x")
    (root / "b" / "other.mp4").write_text("x")
    folder._told = {"in/one.mp4", "in/gone.mp4", "inn/other.mp4"}
    folder._renames = [("in", "a"), ("a", "b")]
    events = await scanner.step(2)
    moves = [event for event in events if event.kind is EventKind.MOVE]
    assert [(event.moved_from, event.relpath) for event in moves] == [("in/one.mp4", "b/one.mp4")]
    assert sorted(kinds(events)) == [
        (EventKind.CREATE, "b/other.mp4"),
        (EventKind.DELETE, "in/gone.mp4"),
        (EventKind.DELETE, "inn/other.mp4"),
        (EventKind.MOVE, "b/one.mp4"),
    ]
