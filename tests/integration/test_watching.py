"""Watcher and FolderScanner together on real folders, with other processes at full speed: after
everything has settled, what they told must be what is there."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from cefmp4 import metrics
from cefmp4.config.ingest import DEFAULT_GLOBS, WatchMode
from cefmp4.model.event import EventKind, StreamEvent
from cefmp4.watch.folder_scanner import FolderScanner
from cefmp4.watch.selection import Selection
from cefmp4.watch.watcher import Watcher

pytestmark = pytest.mark.integration


@dataclass
class Told:
    """What a consumer believes, from events alone."""

    events: list[StreamEvent] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    closed: set[str] = field(default_factory=set)

    def take(self, events: list[StreamEvent]) -> None:
        self.events.extend(events)
        for event in events:
            if event.kind is EventKind.DELETE:
                self.names.discard(event.relpath)
                continue
            if event.kind is EventKind.CLOSE:
                self.closed.add(event.relpath)
            self.names.discard(event.moved_from or "")
            self.names.add(event.relpath)

    def has(self, kind: EventKind, relpath: str, moved_from: str | None = None) -> bool:
        return StreamEvent(kind=kind, relpath=relpath, moved_from=moved_from) in self.events


@asynccontextmanager
async def watching(
    root: Path,
    *,
    mode: WatchMode = WatchMode.EVENTS,
    interval_s: float = 3600,
    buffer_names: int = 50_000,
) -> AsyncIterator[tuple[Watcher, Told]]:
    """With an interval of an hour, only events and requested looks can tell anything."""
    told = Told()
    started = asyncio.Event()
    selection = Selection(DEFAULT_GLOBS)
    async with Watcher(
        root, selection, mode=mode, look_every_s=0.1, buffer_names=buffer_names
    ) as watcher:
        scanner = FolderScanner(watcher, interval_s=interval_s, min_pause_s=0.1)
        told.take(await scanner.step(time.monotonic()))

        async def deliver(events: list[StreamEvent]) -> None:
            told.take(events)

        async def listen() -> None:
            started.set()
            while True:
                told.take(await watcher.events())

        tasks = [asyncio.create_task(listen()), asyncio.create_task(scanner.run(deliver))]
        await started.wait()
        try:
            yield watcher, told
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results), results


async def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # the kernel has no event for it
            await asyncio.sleep(0.02)


async def in_other_process(code: str, root: Path) -> None:
    program = f"import os, sys\nfrom pathlib import Path\nroot = Path(sys.argv[1])\n{code}"
    await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program, str(root)], check=True, timeout=100
    )


def on_disk(root: Path) -> set[str]:
    return {
        os.path.relpath(os.path.join(folder, name), root)
        for folder, _, names in os.walk(root)
        for name in names
    }


async def test_ten_thousand_files_at_once(tmp_path: Path) -> None:
    async with watching(tmp_path) as (_, told):
        code = "for n in range(10_000): (root / f'{n:05}.mp4').write_bytes(b'x')"
        await in_other_process(code, tmp_path)
        await until(lambda: told.names == on_disk(tmp_path))
        assert len(told.names) == 10_000


async def test_files_in_new_nested_folders_are_found(tmp_path: Path) -> None:
    code = """
for a in range(30):
    for b in range(10):
        folder = root / f"{a}" / f"{b}" / "deep"
        folder.mkdir(parents=True)
        for c in range(3):
            (folder / f"{c}.mp4").write_bytes(b"x")
"""
    async with watching(tmp_path) as (_, told):
        await in_other_process(code, tmp_path)
        await until(lambda: told.names == on_disk(tmp_path))
        assert len(told.names) == 900


async def test_a_close_is_told(tmp_path: Path) -> None:
    async with watching(tmp_path) as (_, told):
        writer = os.open(tmp_path / "a.mp4", os.O_WRONLY | os.O_CREAT)
        await until(lambda: told.has(EventKind.CREATE, "a.mp4"))
        assert not told.closed
        os.close(writer)
        await until(lambda: told.closed == {"a.mp4"})


async def test_renames_in_inside_and_out(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (outside / "a.mp4").write_text("x")
    async with watching(root) as (_, told):
        os.rename(outside / "a.mp4", root / "a.mp4")
        await until(lambda: told.has(EventKind.CREATE, "a.mp4"))
        os.rename(root / "a.mp4", root / "b.mp4")
        await until(lambda: told.has(EventKind.MOVE, "b.mp4", "a.mp4"))
        os.rename(root / "b.mp4", outside / "b.mp4")
        await until(lambda: told.has(EventKind.DELETE, "b.mp4"))
        assert told.names == set()


async def test_a_download_that_gets_its_final_name(tmp_path: Path) -> None:
    async with watching(tmp_path) as (_, told):
        (tmp_path / "a.mp4.part").write_text("x")
        os.rename(tmp_path / "a.mp4.part", tmp_path / "a.mp4")
        await until(lambda: told.names == {"a.mp4"})


async def test_folders_moved_in_inside_and_out(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    (outside / "in/deep").mkdir(parents=True)
    for number in range(20):
        (outside / f"in/deep/{number}.mp4").write_text("x")
    async with watching(root) as (_, told):
        os.rename(outside / "in", root / "in")
        await until(lambda: told.names == on_disk(root))
        (root / "in/deep/later.mp4").write_text("x")
        await until(lambda: "in/deep/later.mp4" in told.closed)
        os.rename(root / "in", root / "other")
        await until(lambda: told.names == on_disk(root))
        assert told.has(EventKind.MOVE, "other/deep/1.mp4", "in/deep/1.mp4")
        os.rename(root / "other", outside / "out")
        await until(lambda: told.names == set())


async def test_hostile_names(tmp_path: Path) -> None:
    names = [b"in\nvalid-\xff.mp4", b"sp ace'\".mp4", b"n" * 251 + b".mp4", "\u202e.mp4".encode()]
    async with watching(tmp_path) as (_, told):
        for name in names:
            with open(os.fsencode(tmp_path) + b"/" + name, "wb") as file:  # noqa: ASYNC230  # tiny
                file.write(b"x")
        await until(lambda: {os.fsencode(relpath) for relpath in told.closed} == set(names))


async def test_what_an_overflow_lost_is_found(tmp_path: Path) -> None:
    """The reader is kept from its work while another process floods the queue."""
    dropped = metrics.REGISTRY.get_sample_value("cefmp4_events_dropped_total") or 0.0
    code = """
for n in range(30_000): os.close(os.open(root / f"{n}.tmp", os.O_WRONLY | os.O_CREAT))
for n in range(100): (root / f"{n}.mp4").write_bytes(b"x")
for n in range(30_000): os.unlink(root / f"{n}.tmp")
"""
    async with watching(tmp_path) as (watcher, told):
        assert watcher._observer is not None
        with watcher._observer._lock:
            await in_other_process(code, tmp_path)
        await until(lambda: told.names == {f"{n}.mp4" for n in range(100)})
    assert (metrics.REGISTRY.get_sample_value("cefmp4_events_dropped_total") or 0.0) > dropped


async def test_what_our_own_full_buffer_lost_is_found(tmp_path: Path) -> None:
    async with watching(tmp_path, buffer_names=50) as (_, told):
        code = "for n in range(3_000): (root / f'{n:05}.mp4').write_bytes(b'x')"
        process = asyncio.create_task(in_other_process(code, tmp_path))
        await process
        await until(lambda: told.names == on_disk(tmp_path))


async def test_polling_alone_finds_everything(tmp_path: Path) -> None:
    async with watching(tmp_path, mode=WatchMode.POLLING) as (_, told):
        (tmp_path / "x").mkdir()
        (tmp_path / "x/a.mp4").write_text("x")
        await until(lambda: told.has(EventKind.CREATE, "x/a.mp4"))
        (tmp_path / "x/a.mp4").write_text("xyz")
        await until(lambda: told.has(EventKind.WRITE, "x/a.mp4"))
        os.rename(tmp_path / "x/a.mp4", tmp_path / "b.mp4")
        await until(lambda: told.has(EventKind.MOVE, "b.mp4", "x/a.mp4"))
        (tmp_path / "b.mp4").unlink()
        await until(lambda: told.has(EventKind.DELETE, "b.mp4"))


@pytest.mark.alone
async def test_watching_costs_next_to_nothing_at_rest(tmp_path: Path) -> None:
    for number in range(2000):
        (tmp_path / f"{number}.mp4").touch()
    async with watching(tmp_path, interval_s=60):
        process = psutil.Process()
        before = sum(process.cpu_times()[:2])
        await asyncio.sleep(3)
        assert sum(process.cpu_times()[:2]) - before < 0.15
