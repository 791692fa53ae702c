"""The cheap, periodic look at everything, which finds what events missed. In polling mode it is the
only source of events."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Mapping

import structlog

from cefmp4 import metrics
from cefmp4.model.event import EventKind, StreamEvent
from cefmp4.model.stream import FileStamp
from cefmp4.watch import downloads
from cefmp4.watch.folder_marks import Place
from cefmp4.watch.rescans import Renames, RescanCause
from cefmp4.watch.scan import ScanResult, compare
from cefmp4.watch.walk import BEYOND, MOST_LEVELS, Limit
from cefmp4.watch.watcher import Watcher

log = structlog.get_logger()

# Seconds between two looks, in CPU seconds of one look.
EVENTS_COST = 200.0  # 0.5 % of a core
POLLING_COST = 20.0  # 5 %
REQUEST_COST = 40.0  # 2.5 %, while something asks for looks without a pause
MIN_PAUSE_S = 1.0
DELIVERED_AT_ONCE = 1000  # more would keep everything else waiting

Deliver = Callable[[list[StreamEvent]], Awaitable[None]]


class FolderScanner:
    def __init__(
        self,
        watcher: Watcher,
        *,
        interval_s: float,
        min_pause_s: float = MIN_PAUSE_S,
        place: Place | None = None,
        mounts: frozenset[str] = frozenset(),
    ) -> None:
        self._watcher = watcher
        self._interval_s = interval_s
        self._min_pause_s = min_pause_s
        self._place = place
        self.mounts = mounts  # the folders that were mount points at any time
        self.entries: Mapping[str, FileStamp] = {}  # the wanted files, as at the last look
        self._told: set[str] = set()  # by events only, and not seen by a look yet
        self._missed_once: dict[str, FileStamp] = {}
        self._latest = ScanResult(was_stopped=True)  # as good as none
        self._whole = ScanResult()  # the latest that is: of it, trouble was told
        self._cost_s = 0.0
        self._last_at = float("-inf")

    def __repr__(self) -> str:
        return f"<FolderScanner files={len(self.entries)} cost={self._cost_s:.3f}s>"

    @property
    def interval_s(self) -> float:
        if self._watcher.is_polling:
            return max(self._min_pause_s, POLLING_COST * self._cost_s)
        return max(self._interval_s, EVENTS_COST * self._cost_s)

    @property
    def waiting_for(self) -> str:
        """What people must do something about, in one line; empty where there is nothing."""
        return downloads.waiting_for(self._whole.standing_still)

    def is_gone(self, relpath: str) -> bool:
        """Whether the last look showed for sure that there is no such file."""
        return self._latest.is_whole and self._latest.lacks(relpath)

    @property
    def sees_folder(self) -> bool:
        """Whether the last look was one at the folder, whatever in it was out of sight."""
        return self._latest.is_whole

    @property
    def sees_all(self) -> bool:
        """Whether no part of the folder was out of sight at the last look."""
        return self._latest.is_whole and not self._latest.has_hidden

    def remember(self, stamps: Mapping[str, FileStamp]) -> None:
        """What is known from before the start, so that the first look reports only differences."""
        self.entries = dict(stamps)

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
        told, renames = self._watcher.take_told()
        told |= self._told
        result = await self._look()
        self._last_at = now
        self._report_trouble(result)
        self._latest = result
        self._watcher.check(result)
        if not result.is_whole:
            self._told = told
            return []
        self._whole, self._told = result, set()
        self.mounts |= result.mounts
        return await asyncio.to_thread(self._compare, result, told, renames)

    async def _look(self) -> ScanResult:
        stop = threading.Event()
        try:
            return await asyncio.to_thread(self._scan, stop)
        finally:
            stop.set()  # a cancelled wait must not leave the thread walking

    def _scan(self, stop: threading.Event) -> ScanResult:
        began = time.thread_time()
        result = self._watcher.look(stop.is_set, self.mounts, self._place)
        self._cost_s = time.thread_time() - began
        return result

    def _compare(self, result: ScanResult, told: set[str], renames: Renames) -> list[StreamEvent]:
        """In a thread: there may be many. What lies below a folder that could not be read stays
        known. Without events to tell of renames, a file must be missing twice in a row: one that is
        renamed into a folder we had looked at already is in neither place, and shows up as renamed
        in the next look."""
        began = time.thread_time()
        events = compare(self.entries, result, told, renames)
        gone = {event.relpath for event in events if event.kind is EventKind.DELETE}
        is_polling = self._watcher.is_polling
        held = (gone & self.entries.keys()) - self._missed_once.keys() if is_polling else set()
        missed_once = {path: self.entries[path] for path in held}
        known = result.entries
        if result.has_hidden:
            known.update(self._hidden(gone | {event.moved_from or "" for event in events}, result))
        known.update(missed_once)
        self.entries, self._missed_once = known, missed_once
        self._cost_s += time.thread_time() - began
        return [
            event
            for event in events
            if not (event.kind is EventKind.DELETE and event.relpath in held)
        ]

    def _hidden(self, left: set[str], result: ScanResult) -> dict[str, FileStamp]:
        return {
            path: stamp
            for path, stamp in self.entries.items()
            if path not in result.entries and path not in result.downloading and path not in left
        }

    def _report_trouble(self, result: ScanResult) -> None:
        """What was not so at the last look, and what is not so any more."""
        if result.root_missing != self._latest.root_missing:
            if result.root_missing:
                log.error("the watched folder is gone or unmounted", folder=self._watcher.root)
            else:
                log.info("the watched folder is back", folder=self._watcher.root)
        if not result.is_whole:
            return
        before = self._whole
        self._report_left_out(result, before)
        _report_downloads(result, before)
        metrics.folders_left_out.labels("unreadable").set(len(result.unreadable))
        if result.unreadable and result.unreadable != before.unreadable:
            log.error(
                "folders cannot be read; files in them are not uploaded",
                count=len(result.unreadable),
                first=min(result.unreadable),
            )
        elif before.unreadable and not result.unreadable:
            log.info("all folders can be read again")

    def _report_left_out(self, result: ScanResult, before: ScanResult) -> None:
        left_out, told = result.left_out, before.left_out.counts
        for limit, (sentence, hint) in BEYOND.items():
            count = left_out.counts.get(limit, 0)
            metrics.folders_left_out.labels(limit).set(count)
            if count and limit not in told:
                most = MOST_LEVELS if limit is Limit.DEPTH else self._watcher.most_folders
                first = left_out.examples[limit]
                log.error(sentence, limit=most, count=count, first=first, hint=hint)
            elif not count and limit in told:
                log.info("no folder is left out any more", reason=str(limit))

    async def _pause(self) -> None:
        """Wishes are granted early, but not so often that looking becomes the main work."""
        rescans = self._watcher.rescans
        await rescans.wait(self._left(self.interval_s))
        if rescans.is_set():
            await asyncio.sleep(self._left(max(self._min_pause_s, REQUEST_COST * self._cost_s)))

    def _left(self, since_last_s: float) -> float:
        return max(0.0, self._last_at + since_last_s - time.monotonic())


def _report_downloads(result: ScanResult, before: ScanResult) -> None:
    if new := result.standing_still - before.standing_still:
        log.warning(
            "recordings wait for a download that stands still for a day",
            count=len(result.standing_still),
            file_path=min(new),
            hint=downloads.HINT,
        )
    if new := result.not_downloading - before.not_downloading:
        log.warning(
            "recordings are taken although there are .aria2 files: these are not of their user",
            count=len(result.not_downloading),
            file_path=min(new),
        )
