"""Watches the folder and its watch. Events are hints: whatever is lost on the way (overflow,
limits, a root that was made anew) ends in a request for a rescan, never in silence."""

import asyncio
import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import structlog

from cefmp4 import metrics
from cefmp4.config.ingest import WatchMode
from cefmp4.model.event import EventKind, StreamEvent
from cefmp4.recording.mounts import fs_type_of_path, is_remote
from cefmp4.tasks import comes, finish
from cefmp4.watch.folder_marks import Place, place_of
from cefmp4.watch.hints import HintBuffer, Put
from cefmp4.watch.inotify import FolderObserver
from cefmp4.watch.rescans import Renames, RescanCause, RescanRequests
from cefmp4.watch.scan import ScanResult, scan
from cefmp4.watch.selection import Selection
from cefmp4.watch.walk import MOST_FOLDERS

log = structlog.get_logger()

BUFFER_NAMES = 50_000  # some 15 MB when full
LOOK_EVERY_S = 1.0
MOST_RENAMES = 64  # of folders, between two looks, that are followed name by name

_WATCH_LIMIT = Path("/proc/sys/fs/inotify/max_user_watches")
_OUR_LIMIT = 0
_CURES = {
    errno.ENOSPC: "sysctl fs.inotify.max_user_watches",
    errno.EMFILE: "sysctl fs.inotify.max_user_instances",
    _OUR_LIMIT: "WATCH_MAX_FOLDERS",
}


def choose_mode(root: Path, mode: WatchMode) -> WatchMode:
    """Whether changes are told by the kernel or found by looking, where the settings leave it
    open."""
    if mode is not WatchMode.AUTO:
        return mode
    return WatchMode.POLLING if is_remote(fs_type_of_path(root)) else WatchMode.EVENTS


class Watcher:
    """`async with` begins to watch; `events` waits for hints; `rescans` tells when these are not
    enough."""

    def __init__(
        self,
        root: Path,
        selection: Selection,
        *,
        mode: WatchMode = WatchMode.EVENTS,
        most_folders: int = MOST_FOLDERS,
        buffer_names: int = BUFFER_NAMES,
        look_every_s: float = LOOK_EVERY_S,
    ) -> None:
        self.root = os.path.realpath(root)
        self.selection = selection
        self.rescans = RescanRequests()
        self._mode = mode
        self._look_every_s = look_every_s
        self.most_folders = most_folders
        self._hints = HintBuffer(buffer_names)
        self._told: set[str] = set()
        self._renames: list[tuple[str, str]] = []
        self._wake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._observer: FolderObserver | None = None
        self._next_look = 0.0
        self._is_degraded = False
        self._unwatched: set[str] = set()

    def __repr__(self) -> str:
        return f"<Watcher {self._mode} {self.root!r} {self._observer} {self._hints}>"

    @property
    def is_polling(self) -> bool:
        """Whether events cannot be relied on: rescans come often then."""
        return self._mode is WatchMode.POLLING or self._is_degraded

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        log.info("watching", folder=self.root, mode=str(self._mode))
        if self._mode is WatchMode.EVENTS:
            await self._begin()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._end()

    async def events(self) -> list[StreamEvent]:
        """Waits until there are some. Call it again and again: between events it also makes sure
        that the root is still the one that is watched."""
        while True:
            if self._mode is WatchMode.EVENTS and time.monotonic() >= self._next_look:
                await self._look_after_root()
                self._next_look = time.monotonic() + self._look_every_s
            self._wake.clear()
            if batch := self._hints.drain():
                self._note_told(batch)
                return batch
            await comes(self._wake, within_s=self._look_every_s)

    def take_told(self) -> tuple[set[str], Renames]:
        """Since the last call: the names that events told of, and not that they are gone; and the
        renames of folders. More than a few of those are left to the look to find."""
        told, renames = self._told, self._renames
        self._told, self._renames = set(), []
        return told, renames if len(renames) <= MOST_RENAMES else []

    def look(
        self, stop: Callable[[], bool], mounts: frozenset[str], place: Place | None
    ) -> ScanResult:
        """Blocking: a scan, which watches what it meets."""
        observer = self._observer
        if observer is not None:
            observer.begin_look()
        result = scan(
            self.root,
            self.selection,
            stop,
            expected_mounts=mounts,
            place=place,
            most_folders=self.most_folders,
            watch=observer.watch if observer is not None else None,
        )
        if observer is not None and result.is_whole:
            observer.end_look()
        return result

    def check(self, result: ScanResult) -> None:
        """Whether there are folders without a watch. One that moved while the scan was under way
        may be none, so only one that lacks its watch in two looks counts."""
        if self._observer is None or not result.is_whole:
            return
        confirmed = result.unwatched & self._unwatched
        self._unwatched = result.unwatched
        if confirmed:
            number = _OUR_LIMIT if self._observer.is_full else errno.ENOSPC
            self._degrade(number, unwatched=len(confirmed), folders=len(result.folders))
        elif result.unwatched:
            self.rescans.request(RescanCause.WATCH_LIMIT)
        elif self._is_degraded:
            self._is_degraded = False
            log.info("every folder is watched again", folders=len(result.folders))

    def _note_told(self, events: list[StreamEvent]) -> None:
        for event in events:
            self._told.discard(event.moved_from or "")
            if event.kind is EventKind.DELETE:
                self._told.discard(event.relpath)
            else:
                self._told.add(event.relpath)

    async def _look_after_root(self) -> None:
        place, observer = await asyncio.to_thread(place_of, self.root), self._observer
        if place is None:
            if observer is not None:
                await self._end()
                self.rescans.request(RescanCause.REARMED)
            return
        if observer is None or observer.place != place or not observer.is_alive:
            await self._end()
            if await self._begin():
                log.info("watching anew", folder=self.root)
            self.rescans.request(RescanCause.REARMED)

    async def _begin(self) -> bool:
        self._unwatched = set()
        self._observer = FolderObserver(
            self.root,
            self.selection,
            tell=self._take_event,
            overflow=lambda: self._call(self._queue_overflowed),
            folder_moved=lambda renames: self._call(lambda: self._folder_moved(renames)),
            most_folders=self.most_folders,
        )
        try:
            await finish(asyncio.to_thread(self._observer.start), name="watch the root")
        except asyncio.CancelledError:
            await self._end()
            raise
        except OSError as error:
            self._observer = None
            if error.errno in _CURES:
                self._degrade(error.errno)
            else:
                log.warning("cannot watch the folder", folder=self.root, reason=str(error))
            return False
        return True

    async def _end(self) -> None:
        observer, self._observer = self._observer, None
        if observer is not None:
            await asyncio.shield(asyncio.to_thread(observer.stop))

    def _degrade(self, number: int, **counts: int) -> None:
        if self._is_degraded:
            return
        self._is_degraded = True
        log.error(
            "too few inotify watches: the folder is looked through often instead",
            hint=f"raise {_CURES[number]}",
            max_user_watches=_watch_limit(),
            **counts,
        )

    # From the observer's thread.

    def _call(self, function: Callable[[], None]) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(function)

    def _take_event(self, event: StreamEvent) -> None:
        put = self._hints.put(event)
        if put is Put.FIRST:
            self._call(self._wake.set)
        elif put is Put.DROPPED:
            self._call(self._events_lost)

    def _queue_overflowed(self) -> None:
        if self.rescans.cause is not RescanCause.OVERFLOW:
            log.warning(
                "the kernel's event queue overflowed: the whole folder is looked through",
                hint="raise sysctl fs.inotify.max_queued_events where it happens often",
            )
        self._events_lost()

    def _events_lost(self) -> None:
        metrics.events_dropped.inc()
        self.rescans.request(RescanCause.OVERFLOW)

    def _folder_moved(self, renames: Renames) -> None:
        """Also when the root itself was removed: then it must be looked after at once."""
        if len(self._renames) <= MOST_RENAMES:
            self._renames += renames
        self._next_look = 0.0
        self._wake.set()
        self.rescans.request(RescanCause.FOLDER_MOVED)


def _watch_limit() -> int:
    try:
        return int(_WATCH_LIMIT.read_text("ascii"))
    except (OSError, ValueError):
        return 0
