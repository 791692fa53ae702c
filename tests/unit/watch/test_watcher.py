"""The watch over the watch: roots that go, limits, and events that are lost on the way."""

import asyncio
import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tests.faults.registry import CannotRunError
from tests.faults.tiny_disk import tiny_disk

from cefmp4 import metrics
from cefmp4.config.ingest import DEFAULT_GLOBS, WatchMode
from cefmp4.model.event import EventKind, StreamEvent
from cefmp4.watch.inotify import FolderObserver
from cefmp4.watch.rescans import RescanCause
from cefmp4.watch.scan import ScanResult
from cefmp4.watch.selection import Selection
from cefmp4.watch.watcher import Watcher


def watch(root: Path, **options: object) -> Watcher:
    settings: dict[str, object] = {"look_every_s": 0.02, **options}
    return Watcher(root, Selection(DEFAULT_GLOBS), **settings)  # type: ignore[arg-type]


def look(watcher: Watcher) -> ScanResult:
    return watcher.look(lambda: False, frozenset(), None)


async def next_event(watcher: Watcher) -> StreamEvent:
    async with asyncio.timeout(20):
        return (await watcher.events())[0]


async def listen_until(watcher: Watcher, condition: Callable[[], bool]) -> None:
    """Events are listened to, as always, while something else is waited for."""
    listening = asyncio.create_task(watcher.events())
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  # the kernel has no event for it
            await asyncio.sleep(0.005)
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)


async def test_a_root_that_appears_later_is_watched(tmp_path: Path) -> None:
    root = tmp_path / "late"
    async with watch(root) as watcher:
        root.mkdir()
        await listen_until(watcher, watcher.rescans.is_set)
        assert watcher.rescans.take() is RescanCause.REARMED
        (root / "a.mp4").touch()
        assert (await next_event(watcher)).relpath == "a.mp4"


async def test_a_symlinked_root_is_resolved_once(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    async with watch(tmp_path / "link") as watcher:
        (tmp_path / "real/a.mp4").touch()
        assert (await next_event(watcher)).relpath == "a.mp4"


async def test_polling_has_no_observer(tmp_path: Path) -> None:
    async with watch(tmp_path, mode=WatchMode.POLLING) as watcher:
        assert watcher.is_polling
        watcher.check(look(watcher))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await watcher.events()


async def test_a_root_that_is_removed_and_made_anew_is_watched_again(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    async with watch(root) as watcher:
        root.rmdir()
        await listen_until(watcher, lambda: watcher._observer is None and watcher.rescans.is_set())
        assert watcher.rescans.is_set()
        watcher.rescans.take()
        root.mkdir()
        await listen_until(watcher, watcher.rescans.is_set)
        assert watcher.rescans.take() is RescanCause.REARMED
        (root / "a.mp4").touch()
        assert (await next_event(watcher)).relpath == "a.mp4"


async def test_a_root_that_is_replaced_is_watched_again(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    async with watch(root) as watcher:
        os.rename(root, tmp_path / "former")
        root.mkdir()
        await listen_until(watcher, watcher.rescans.is_set)
        (root / "a.mp4").touch()
        assert (await next_event(watcher)).relpath == "a.mp4"


async def test_a_dead_thread_of_the_observer_is_replaced(tmp_path: Path) -> None:
    async with watch(tmp_path) as watcher:
        assert watcher._observer is not None
        await asyncio.to_thread(watcher._observer.stop)
        await listen_until(watcher, watcher.rescans.is_set)
        (tmp_path / "a.mp4").touch()
        assert (await next_event(watcher)).relpath == "a.mp4"


async def test_a_full_buffer_asks_for_a_rescan(tmp_path: Path) -> None:
    dropped = metrics.REGISTRY.get_sample_value("cefmp4_events_dropped_total") or 0.0
    async with watch(tmp_path, buffer_names=5) as watcher:
        for number in range(6):
            watcher._take_event(StreamEvent(kind=EventKind.CREATE, relpath=f"{number}.mp4"))
        await asyncio.sleep(0)
        assert watcher.rescans.take() is RescanCause.OVERFLOW
    assert metrics.REGISTRY.get_sample_value("cefmp4_events_dropped_total") == dropped + 1


async def test_folders_without_a_watch_are_told_once_and_looked_at_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    async with watch(tmp_path) as watcher:
        with monkeypatch.context() as patched, capture_logs() as logs:
            patched.setattr(FolderObserver, "watch", lambda _, fd, relpath: not relpath)
            watcher.check(look(watcher))
            assert not watcher.is_polling  # the folder may be younger than its watch
            assert watcher.rescans.take() is RescanCause.WATCH_LIMIT
            for _ in range(3):
                watcher.check(look(watcher))
            assert watcher.is_polling
        errors = [entry for entry in logs if entry["log_level"] == "error"]
        assert len(errors) == 1
        assert errors[0]["hint"] == "raise sysctl fs.inotify.max_user_watches"
        assert errors[0]["unwatched"] == 1
        watcher.check(look(watcher))
        assert not watcher.is_polling


async def test_what_is_mounted_later_is_watched(tmp_path: Path) -> None:
    """The folder has its watch already, and so has its name; no event tells of the mount."""
    disk = tmp_path / "disk"
    disk.mkdir()
    async with watch(tmp_path) as watcher, AsyncExitStack() as mounted:
        watcher.check(look(watcher))
        try:
            await mounted.enter_async_context(tiny_disk(disk, 2**20))
        except CannotRunError as error:
            pytest.skip(str(error))
        look(watcher)
        listening = asyncio.create_task(next_event(watcher))
        number = 0
        while not listening.done():
            (disk / f"{(number := number + 1)}.mp4").touch()
            await asyncio.sleep(0.02)
        assert (await listening).relpath.startswith("disk/")
        watcher.check(look(watcher))
        assert watcher.rescans.cause is None


async def test_too_few_watches_for_the_root_means_polling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing_start(_: FolderObserver) -> None:
        raise OSError(24, "inotify instance limit reached")

    with monkeypatch.context() as patched, capture_logs() as logs:
        patched.setattr(FolderObserver, "start", refusing_start)
        async with watch(tmp_path) as watcher:
            assert watcher.is_polling
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await watcher.events()
    errors = [entry for entry in logs if entry["log_level"] == "error"]
    assert [entry["hint"] for entry in errors] == ["raise sysctl fs.inotify.max_user_instances"]
