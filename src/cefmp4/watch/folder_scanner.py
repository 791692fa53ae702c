"""The cheap, periodic look at everything, which finds what events missed. In polling mode it is the
only source of events."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

import structlog

from cefmp4 import metrics
from cefmp4.model.event import EventKind, StreamEvent
from cefmp4.model.stream import FileStamp
from cefmp4.watch.downloads import DownloadReport
from cefmp4.watch.rescans import Renames, RescanCause, RescanRequests
from cefmp4.watch.scan import ScanResult, compare, scan
from cefmp4.watch.selection import Selection
from cefmp4.watch.walk import BEYOND, LeftOut, Limit, Limits

log = structlog.get_logger()

# Seconds between two looks, in CPU seconds of one look.
EVENTS_COST = 200.0  # 0.5 % of a core
POLLING_COST = 20.0  # 5 %
REQUEST_COST = 40.0  # 2.5 %, while something asks for looks without a pause
MIN_PAUSE_S = 1.0
DELIVERED_AT_ONCE = 1000  # more would keep everything else waiting

Deliver = Callable[[list[StreamEvent]], Awaitable[None]]


class Coverage(Protocol):
    """What the FolderScanner must know of the Watcher."""

    @property
    def root(self) -> str: ...

    @property
    def selection(self) -> Selection: ...

    @property
    def rescans(self) -> RescanRequests: ...

    @property
    def is_polling(self) -> bool:
        """Whether events cannot be relied on, so that only looking helps."""
        ...

    def take_told(self) -> set[str]:
        """The names that events told of since the last call."""
        ...

    def take_renames(self) -> Renames:
        """The renames of folders since the last call."""
        ...

    async def check(self, result: ScanResult) -> None:
        """Compares what is watched with what was seen."""
        ...


class FolderScanner:
    def __init__(
        self,
        watcher: Coverage,
        *,
        interval_s: float,
        min_pause_s: float = MIN_PAUSE_S,
        place: tuple[int, int] | None = None,
        limits: Limits = Limits(),  # noqa: B008  # frozen
    ) -> None:
        self._watcher = watcher
        self._interval_s = interval_s
        self._min_pause_s = min_pause_s
        self._place = place
        self._limits = limits
        self._known: dict[str, FileStamp] = {}
        self._told: set[str] = set()  # by events only, and not seen by a look yet
        self._missed_once: dict[str, FileStamp] = {}
        self._mounts: frozenset[str] = frozenset()
        self._latest: ScanResult | None = None
        self._unreadable: list[str] = []
        self._beyond: set[Limit] = set()
        self._downloads = DownloadReport()
        self._was_missing = False
        self._cost_s = 0.0
        self._last_at = float("-inf")

    def __repr__(self) -> str:
        return f"<FolderScanner files={len(self._known)} cost={self._cost_s:.3f}s>"

    @property
    def entries(self) -> Mapping[str, FileStamp]:
        """The wanted files as they were at the last look."""
        return self._known

    @property
    def interval_s(self) -> float:
        if self._watcher.is_polling:
            return max(self._min_pause_s, POLLING_COST * self._cost_s)
        return max(self._interval_s, EVENTS_COST * self._cost_s)

    @property
    def mounts(self) -> frozenset[str]:
        """The folders that were mount points at any time."""
        return self._mounts

    @property
    def waiting_for(self) -> str:
        """What people must do something about, in one line; empty where there is nothing."""
        return self._downloads.waiting_for

    def is_gone(self, relpath: str) -> bool:
        """Whether the last look showed for sure that there is no such file."""
        latest = self._latest
        return latest is not None and latest.is_whole and latest.lacks(relpath)

    @property
    def sees_all(self) -> bool:
        """Whether no part of the folder was out of sight at the last look."""
        latest = self._latest
        return latest is not None and latest.is_whole and not latest.has_hidden

    def expect_mounts(self, mounts: frozenset[str]) -> None:
        """Those of before the start."""
        self._mounts = mounts

    def remember(self, stamps: Mapping[str, FileStamp]) -> None:
        """What is known from before the start, so that the first look reports only differences."""
        self._known = dict(stamps)

    async def run(self, deliver: Deliver) -> None:
        while True:
            await self._pause()
            events = await self.step(time.monotonic())
            await deliver(events[:DELIVERED_AT_ONCE])
            for start in range(DELIVERED_AT_ONCE, len(events), DELIVERED_AT_ONCE):
                await asyncio.sleep(0)
                await deliver(events[start : start + DELIVERED_AT_ONCE])

    async def step(self, now: float) -> list[StreamEvent]:
        """One look, and what changed since the one before."""
        is_first = self._last_at == float("-inf")
        cause = self._watcher.rescans.take() or RescanCause.INTERVAL
        metrics.rescans.labels(RescanCause.START if is_first else cause).inc()
        told = self._told | self._watcher.take_told()
        renames = self._watcher.take_renames()
        result, events = await self._look()
        self._last_at, self._latest = now, result
        self._report_trouble(result)
        await self._watcher.check(result)
        if not result.is_whole:
            self._told = told
            return []
        self._told = set()
        self._mounts = self._mounts | result.mounts
        return await asyncio.to_thread(self._remember_whole, events, result, told, renames)

    async def _look(self) -> tuple[ScanResult, list[StreamEvent]]:
        stop = threading.Event()
        try:
            result, events, self._cost_s = await asyncio.to_thread(self._scan_and_compare, stop)
        finally:
            stop.set()  # a cancelled wait must not leave the thread walking
        return result, events

    def _scan_and_compare(
        self, stop: threading.Event
    ) -> tuple[ScanResult, list[StreamEvent], float]:
        began = time.thread_time()
        watcher = self._watcher
        result = scan(
            watcher.root,
            watcher.selection,
            stop.is_set,
            expected_mounts=self._mounts,
            place=self._place,
            limits=self._limits,
        )
        events = compare(self._known, result)
        return result, events, time.thread_time() - began

    def _remember_whole(
        self,
        events: list[StreamEvent],
        result: ScanResult,
        told: set[str],
        renames: Renames,
    ) -> list[StreamEvent]:
        """In a thread: there may be many. What lies below a folder that could not be read stays
        known. Without events to tell of renames, a file must be missing twice in a row: one that is
        renamed into a folder we had looked at already is in neither place, and shows up as renamed
        in the next look."""
        left = [path for path in told if path not in self._known and result.lacks(path)]
        events = _with_renames(events, left, renames, result)
        gone = {event.relpath for event in events if event.kind is EventKind.DELETE}
        is_polling = self._watcher.is_polling
        held = (gone & self._known.keys()) - self._missed_once.keys() if is_polling else set()
        missed_once = {path: self._known[path] for path in held}
        known = result.entries
        if result.has_hidden:
            known.update(self._hidden(gone | {event.moved_from or "" for event in events}, result))
        known.update(missed_once)
        self._known, self._missed_once = known, missed_once
        return [
            event
            for event in events
            if not (event.kind is EventKind.DELETE and event.relpath in held)
        ]

    def _hidden(self, left: set[str], result: ScanResult) -> dict[str, FileStamp]:
        return {
            path: stamp
            for path, stamp in self._known.items()
            if path not in result.entries and path not in result.downloading and path not in left
        }

    def _report_trouble(self, result: ScanResult) -> None:
        if result.root_missing != self._was_missing:
            self._was_missing = result.root_missing
            if result.root_missing:
                log.error("the watched folder is gone or unmounted", folder=self._watcher.root)
            else:
                log.info("the watched folder is back", folder=self._watcher.root)
        if not result.is_whole:
            return
        self._report_left_out(result.left_out)
        self._downloads.tell(result.standing_still, result.not_downloading)
        metrics.folders_left_out.labels("unreadable").set(len(result.unreadable))
        if result.unreadable != self._unreadable:
            self._unreadable = result.unreadable
            if result.unreadable:
                log.error(
                    "folders cannot be read; files in them are not uploaded",
                    count=len(result.unreadable),
                    first=result.unreadable[0],
                )
            else:
                log.info("all folders can be read again")

    def _report_left_out(self, left_out: LeftOut) -> None:
        for limit, (sentence, hint) in BEYOND.items():
            count = left_out.counts.get(limit, 0)
            metrics.folders_left_out.labels(limit).set(count)
            if count and limit not in self._beyond:
                most = self._limits.levels if limit is Limit.DEPTH else self._limits.folders
                first = left_out.examples[limit]
                log.error(sentence, limit=most, count=count, first=first, hint=hint)
            elif not count and limit in self._beyond:
                log.info("no folder is left out any more", reason=str(limit))
        self._beyond = set(left_out.counts)

    async def _pause(self) -> None:
        """Wishes are granted early, but not so often that looking becomes the main work."""
        rescans = self._watcher.rescans
        await rescans.wait(self._left(self.interval_s))
        if rescans.is_set():
            await asyncio.sleep(self._left(max(self._min_pause_s, REQUEST_COST * self._cost_s)))

    def _left(self, since_last_s: float) -> float:
        return max(0.0, self._last_at + since_last_s - time.monotonic())


def _with_renames(
    events: list[StreamEvent], left: list[str], renames: Renames, result: ScanResult
) -> list[StreamEvent]:
    """`left`: names that only events told of, and that are gone. They went along with a folder, or
    away."""
    moved = {}
    for path in left:
        target = _renamed(path, renames)
        if target != path and target in result.entries:
            moved[target] = path
        else:
            events.append(StreamEvent(kind=EventKind.DELETE, relpath=path))
    return [
        StreamEvent(kind=EventKind.MOVE, relpath=event.relpath, moved_from=moved[event.relpath])
        if event.kind is EventKind.CREATE and event.relpath in moved
        else event
        for event in events
    ]


def _renamed(path: str, renames: Renames) -> str:
    for former, now in renames:
        if path.startswith(f"{former}/"):
            path = now + path[len(former) :]
    return path
