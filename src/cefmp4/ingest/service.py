"""The loops of the ingest side and the order in which they start and stop."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from time import monotonic, time

import structlog

from cefmp4.errors import CefError, TransientError, first_error
from cefmp4.ingest.active_files import ActiveFiles
from cefmp4.ingest.after.handover import Handover
from cefmp4.ingest.claims import Claims
from cefmp4.ingest.finished_index import FinishedIndex
from cefmp4.ingest.folder import FolderFinder, FoundFolder
from cefmp4.ingest.recover.orphans import OrphanSweeper
from cefmp4.ingest.recover.startup import Startup
from cefmp4.ingest.router import StreamRouter
from cefmp4.ingest.writer_profile import WriterProfiles
from cefmp4.model.event import EventKind, StreamEvent
from cefmp4.model.stream import FileStamp
from cefmp4.model.view import StreamView, view_of_record
from cefmp4.ports.checkpoints import CheckpointStore
from cefmp4.reachability import level_of
from cefmp4.retry import patiently
from cefmp4.tasks import cancel_all, cut_by
from cefmp4.watch.folder_scanner import FolderScanner
from cefmp4.watch.watcher import Watcher

log = structlog.get_logger()

ORPHAN_INTERVAL_S = 60.0
EVENTS_AT_ONCE = 1000  # some 10 ms
PUBLISH_INTERVAL_S = 1.0
FOLDER_INTERVAL_S = 0.5
AWAY_LOOKS = 2  # a folder that is exchanged for another is away for a moment
FAREWELL_S = 1.0  # a Redis that is away must not hold up the end


@dataclass(slots=True, kw_only=True)
class IngestService:
    checkpoints: CheckpointStore
    index: FinishedIndex
    writer_profiles: WriterProfiles
    startup: Startup
    router: StreamRouter
    watcher: Watcher
    scanner: FolderScanner
    active_files: ActiveFiles
    handover: Handover
    claims: Claims
    orphans: OrphanSweeper
    finder: FolderFinder
    found: FoundFolder
    drain_timeout_s: float
    lease_seconds: float
    is_ready: bool = False
    folder_lost: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`: intake ends first, then parts on the wire arrive, then all loops end. Or
        until the folder is no longer the one it was: then everything stops where it is, to go on in
        a service that is built anew when the folder is back."""
        async with AsyncExitStack() as stack:
            async with cut_by(stop):
                learnt = await patiently(
                    lambda: self.checkpoints.recall("habits"), what="checkpoint"
                )
                self.writer_profiles.load_json(learnt or "{}")
                await self.startup.load()
                known = {path: finished.stamp for path, finished in self.index.entries()}
                self.scanner.remember(known)
                await stack.enter_async_context(self.watcher)
            if stop.is_set():
                return
            with first_error():
                async with asyncio.TaskGroup() as loops:
                    await self._run_loops(loops, stop)

    def views(self) -> list[StreamView]:
        """What goes on now, and what ended lately."""
        live = self.active_files.views()
        shown = {view.id for view in live}
        ended = {stream.id: stream for stream in self.index.latest if stream.id not in shown}
        return live + [view_of_record(stream) for stream in ended.values()]

    async def _run_loops(self, loops: asyncio.TaskGroup, stop: asyncio.Event) -> None:
        def start(*steps: Callable[[], Coroutine[None, None, None]]) -> list[asyncio.Task[None]]:
            return [loops.create_task(step(), name=step.__qualname__) for step in steps]

        running = start(
            self.active_files.run,
            self.handover.run,
            self._keep_leases,
            self._follow_requests,
            self._publish,
            self._restore_memory,
            self._watch_folder,
        )
        admission: list[asyncio.Task[None]] = []
        async with cut_by(stop):
            await self._catch_up()
        if not stop.is_set():
            admission = start(self._follow_events, self._reconcile)
            running += start(self._sweep_orphans)
            self.is_ready = True
            log.info("ready", finished=len(self.index), streams=len(self.router.processors))
            async with cut_by(stop):
                await self.folder_lost.wait()
            self.is_ready = False
        log.info("stopping", streams=len(self.router.processors))
        await cancel_all(admission)
        await self.router.drain(0 if self.folder_lost.is_set() else self.drain_timeout_s)
        await cancel_all(running)
        await self._take_down_views()

    async def _catch_up(self) -> None:
        """The first look at the folder, compared with what was remembered."""
        events = await self.scanner.step(monotonic())
        found = self.scanner.entries
        for relpath in await self.startup.catch_up(found, self.scanner.is_gone):
            self.router.start(relpath)
        await self._handle(events, seen=found)
        await self._remember_mounts()

    async def _remember_mounts(self) -> None:
        await self.finder.remember_mounts(self.scanner.mounts - {""})

    async def _watch_folder(self) -> None:
        away = 0
        while away < AWAY_LOOKS:
            await asyncio.sleep(FOLDER_INTERVAL_S)
            away = away + 1 if await self.finder.is_away(self.found) else 0
        log.warning(
            "the watched folder is gone, unmounted, or another one", folder=self.finder.root
        )
        self.folder_lost.set()

    async def _follow_events(self) -> None:
        while True:
            await self._handle(await self.watcher.events())

    async def _handle(
        self, events: list[StreamEvent], seen: Mapping[str, FileStamp] | None = None
    ) -> None:
        """With pauses, for there may be 100,000 of them. What a look found at once comes in the
        order in which it was recorded."""
        if seen is not None:
            events = await asyncio.to_thread(_oldest_first, events, seen)
        for start in range(0, len(events), EVENTS_AT_ONCE):
            self.router.handle(events[start : start + EVENTS_AT_ONCE], seen)
            await asyncio.sleep(0)

    async def _reconcile(self) -> None:
        async def deliver(events: list[StreamEvent]) -> None:
            scanner = self.scanner
            seen = await self.startup.place(scanner.entries, scanner.is_gone)
            self._look_afresh(seen)
            await self._handle(events, seen=scanner.entries)
            await self._remember_mounts()

        await self.scanner.run(deliver)

    async def _sweep_orphans(self) -> None:
        while True:
            with _healing("orphan sweep"):
                await self.orphans.step(time())
                if self.is_ready and self.scanner.sees_all:
                    await self._end_displaced()
            await asyncio.sleep(ORPHAN_INTERVAL_S)

    async def _end_displaced(self) -> None:
        at_work = {record.stream.id for record in self.router.records}
        self._look_afresh(await self.startup.end_displaced(self.scanner.entries, at_work))

    def _look_afresh(self, relpaths: Iterable[str]) -> None:
        self.router.handle(StreamEvent(kind=EventKind.CREATE, relpath=path) for path in relpaths)

    async def _follow_requests(self) -> None:
        """What an operator changed in Redis: the path is looked at afresh."""
        async for action, stream_id in self.checkpoints.requests():
            relpath = self.index.remove_id(stream_id)
            log.info("operator request", action=action, stream_id=stream_id)
            if relpath is not None:
                self._look_afresh([relpath])

    async def _publish(self) -> None:
        """Progress for `cefmp4 status`, and what was learnt, for the next start."""
        saved = ""
        while True:
            with _healing("progress"):
                await self.checkpoints.publish_views(
                    self.active_files.views(), note=self.scanner.waiting_for
                )
                if (learnt := self.writer_profiles.to_json()) != saved:
                    await self.checkpoints.remember("habits", learnt)
                    saved = learnt
                if self.is_ready and self.scanner.sees_folder and self.router.pending == 0:
                    await self.startup.finish_survey()
            await asyncio.sleep(PUBLISH_INTERVAL_S)

    async def _take_down_views(self) -> None:
        """Whoever looks next sees the records, not what we were doing last."""
        with _healing("progress"), suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_S):
                await self.checkpoints.publish_views([])

    async def _keep_leases(self) -> None:
        while True:
            try:
                await self.claims.renew(self.router.records, on_lost=self.router.fence_off)
            except TransientError as error:
                log.log(level_of(error), "leases could not be renewed", reason=str(error))
            await asyncio.sleep(self.lease_seconds / 3)

    async def _restore_memory(self) -> None:
        while True:
            await asyncio.sleep(self.lease_seconds / 3)
            if await self._is_memory_lost():
                log.warning("Redis was emptied: writing everything again from what we know")
                await self.finder.remember_again()
                await self.startup.restore(lambda: [one.stream for one in self.router.records])
                await self._handle(self._unknown_files(), seen=self.scanner.entries)

    async def _is_memory_lost(self) -> bool:
        """While what it forgot is being found again, it counts as emptied for whoever starts."""
        if self.startup.is_surveying:
            return False
        with _healing("look for the memory"):
            is_fresh = await self.checkpoints.is_fresh(self.found.folder.id)
            return is_fresh and not self.startup.is_surveying
        return False

    def _unknown_files(self) -> list[StreamEvent]:
        """Those of other instances, whose records are lost, too."""
        return [
            StreamEvent(kind=EventKind.CREATE, relpath=relpath)
            for relpath, stamp in self.scanner.entries.items()
            if not self.index.has(relpath, stamp)
        ]


def _oldest_first(events: list[StreamEvent], seen: Mapping[str, FileStamp]) -> list[StreamEvent]:
    """New files by their dates; renames before them and removals behind them, as they are."""

    def rank(event: StreamEvent) -> tuple[int, int]:
        if event.kind is EventKind.MOVE:
            return 0, 0
        stamp = seen.get(event.relpath)
        return (2, 0) if stamp is None else (1, stamp.mtime_ns)

    return sorted(events, key=rank)


@contextmanager
def _healing(what: str) -> Iterator[None]:
    """Around one turn of a side loop: the next turn may find the server back."""
    try:
        yield
    except CefError as error:
        log.debug(f"{what} failed", reason=str(error))
