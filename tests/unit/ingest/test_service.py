"""How the ingest side starts and stops, on parts that only note what they are told."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.support.checkpoint_records import stream
from tests.support.fake_checkpoints import FakeCheckpointStore

from cefmp4.errors import InvariantError, ServerUnreachableError
from cefmp4.ingest import service as service_module
from cefmp4.ingest.claims import Claims
from cefmp4.ingest.finished_index import FinishedIndex
from cefmp4.ingest.folder import FoundFolder
from cefmp4.ingest.service import IngestService
from cefmp4.ingest.writer_profile import WriterProfiles
from cefmp4.model.event import EventKind, StreamEvent
from cefmp4.model.folder import WatchedFolder
from cefmp4.model.stream import FileStamp, StreamState
from cefmp4.retry import no_waiting
from cefmp4.tasks import cancel_all

DRAIN_S = 7.0
STAMP = FileStamp(1, 10, 5, 5)
TURN_S = 0.01  # of the leases, and of the looks at whether Redis remembers


@dataclass
class Notes:
    """What was told, in order. What hangs waits for ever."""

    told: list[str] = field(default_factory=list)
    hangs: str = ""
    reached: asyncio.Event = field(default_factory=asyncio.Event)

    async def note(self, what: str) -> None:
        self.told.append(what)
        if what == self.hangs:
            self.reached.set()
            await asyncio.Event().wait()


@dataclass
class Startup:
    notes: Notes
    paths: list[str] = field(default_factory=list)
    is_surveying: bool = False
    restored: asyncio.Event = field(default_factory=asyncio.Event)
    surveyed: asyncio.Event = field(default_factory=asyncio.Event)

    async def load(self) -> None:
        await self.notes.note("load")

    async def catch_up(self, *_: object) -> list[str]:
        await self.notes.note("place")
        return self.paths

    async def place(self, *_: object) -> list[str]:
        return []

    async def finish_survey(self) -> None:
        self.surveyed.set()

    async def end_displaced(self, *_: object) -> list[str]:
        return []

    async def restore(self, at_work: Callable[[], list[Any]]) -> None:
        await self.notes.note(f"restore {at_work()}")
        self.is_surveying = True
        self.restored.set()


@dataclass
class Router:
    notes: Notes
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    processors: tuple[()] = ()
    records: tuple[()] = ()
    pending: int = 0

    def start(self, relpath: str) -> None:
        self.notes.told.append(f"start {relpath}")

    def fence_off(self, record: object) -> None:
        raise AssertionError(record)

    def handle(self, events: list[StreamEvent], seen: Any = None) -> None:
        self.notes.told += [f"{event.kind} {event.relpath}" for event in events]
        self.changed.set()

    async def drain(self, timeout_s: float) -> None:
        await self.notes.note(f"drain {timeout_s}")


@dataclass
class Watcher:
    notes: Notes
    queue: asyncio.Queue[list[StreamEvent]] = field(default_factory=asyncio.Queue)

    async def __aenter__(self) -> "Watcher":
        await self.notes.note("watch")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.notes.told.append("watch no more")

    async def events(self) -> list[StreamEvent]:
        return await self.queue.get()


@dataclass
class Scanner:
    notes: Notes
    entries: dict[str, FileStamp] = field(default_factory=dict)
    mounts: frozenset[str] = frozenset({""})
    waiting_for: str = ""
    sees_folder: bool = True
    sees_all: bool = True
    runs: asyncio.Event = field(default_factory=asyncio.Event)

    def remember(self, known: object) -> None:
        pass

    def is_gone(self, relpath: str) -> bool:
        return True

    async def step(self, now: float) -> list[StreamEvent]:
        await self.notes.note("look")
        return [StreamEvent(kind=EventKind.CREATE, relpath=path) for path in self.entries]

    async def run(self, deliver: object) -> None:
        self.runs.set()
        await asyncio.Event().wait()


@dataclass
class Loop:
    """Of the beat."""

    notes: Notes
    name: str

    async def run(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.notes.told.append(f"{self.name} ends")

    def views(self) -> list[Any]:
        return []


@dataclass
class Orphans:
    async def step(self, now: float) -> None:
        pass


@dataclass
class Finder:
    notes: Notes
    root: str = "/rec"
    away: bool = False

    async def is_away(self, found: FoundFolder) -> bool:
        return self.away

    async def remember_mounts(self, mounts: object) -> None:
        await self.notes.note("mounts")

    async def remember_again(self) -> None:
        await self.notes.note("remember folder")


class Stage:
    def __init__(self) -> None:
        self.notes = notes = Notes()
        self.stop = asyncio.Event()
        self.checkpoints = FakeCheckpointStore()
        self.router, self.watcher = Router(notes), Watcher(notes)
        self.scanner, self.finder = Scanner(notes), Finder(notes)
        self.startup = Startup(notes)
        parts: dict[str, Any] = {
            "startup": self.startup,
            "router": self.router,
            "watcher": self.watcher,
            "scanner": self.scanner,
            "active_files": Loop(notes, "beat"),
            "handover": Loop(notes, "handover"),
            "orphans": Orphans(),
            "finder": self.finder,
        }
        self.service = IngestService(
            checkpoints=self.checkpoints,
            claims=Claims(checkpoints=self.checkpoints, owner="me", wall_clock=time.time),
            index=FinishedIndex(),
            writer_profiles=WriterProfiles(),
            found=FoundFolder(folder=WatchedFolder(id="f"), place=(1, 1), mounts=frozenset()),
            drain_timeout_s=DRAIN_S,
            lease_seconds=3 * TURN_S,
            **parts,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator["asyncio.Task[None]"]:
        await self.checkpoints.mark_used("f")
        run = asyncio.create_task(self.service.run(self.stop))
        try:
            async with asyncio.timeout(10):
                yield run
        finally:
            await cancel_all([run])


@pytest.fixture
def stage() -> Stage:
    return Stage()


async def test_it_starts_and_stops_in_order(stage: Stage) -> None:
    stage.scanner.entries["new.mp4"] = STAMP
    stage.startup.paths.append("unfinished.mp4")
    async with stage.running() as run:
        await stage.scanner.runs.wait()
        assert stage.service.is_ready
        stage.stop.set()
        await run
    told = stage.notes.told
    start = ["load", "watch", "look", "place", "start unfinished.mp4", "create new.mp4", "mounts"]
    assert told[: len(start)] == start
    drained = told.index(f"drain {DRAIN_S}")
    assert drained == len(start), "intake ends first, and parts on the wire may arrive"
    assert set(told[drained + 1 : -1]) == {"beat ends", "handover ends"}
    assert told[-1] == "watch no more"
    assert not stage.service.is_ready


@pytest.mark.parametrize("where", ["load", "watch", "look", "place", "mounts"])
async def test_a_stop_is_heard_wherever_the_start_waits(stage: Stage, where: str) -> None:
    stage.notes.hangs = where
    async with stage.running() as run:
        await stage.notes.reached.wait()
        assert not stage.service.is_ready, "not before the first look is through"
        stage.stop.set()
        await run
    assert not stage.service.is_ready
    assert not stage.scanner.runs.is_set()


async def test_a_redis_that_is_away_at_the_start_is_waited_for(stage: Stage) -> None:
    stage.checkpoints.fail("recall", ServerUnreachableError("away"), times=3)
    with no_waiting():
        async with stage.running() as run:
            await stage.scanner.runs.wait()
            stage.stop.set()
            await run


async def test_a_folder_that_is_lost_ends_it_at_once(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "FOLDER_INTERVAL_S", 0.0)
    async with stage.running() as run:
        await stage.scanner.runs.wait()
        stage.finder.away = True
        await run
    assert stage.service.folder_lost.is_set()
    assert "drain 0" in stage.notes.told, "nothing can arrive any more"


async def test_events_reach_the_router(stage: Stage) -> None:
    async with stage.running():
        await stage.scanner.runs.wait()
        stage.router.changed.clear()
        await stage.watcher.queue.put([StreamEvent(kind=EventKind.CLOSE, relpath="a.mp4")])
        await stage.router.changed.wait()
    assert "close a.mp4" in stage.notes.told


async def test_what_an_operator_asks_for_is_looked_at_afresh(stage: Stage) -> None:
    stage.service.index.add(
        stream("s1", "a.mp4", state=StreamState.FAILED, stamp=STAMP, size=STAMP.size)
    )
    async with stage.running():
        await stage.scanner.runs.wait()
        stage.router.changed.clear()
        await stage.checkpoints.request("retry", "s1")
        await stage.router.changed.wait()
    assert stage.service.index.get("a.mp4") is None
    assert "create a.mp4" in stage.notes.told


async def test_leases_that_cannot_be_renewed_end_nothing(stage: Stage) -> None:
    """The next turn finds Redis back; only what is no trouble of a server ends the service."""
    stage.checkpoints.fail("renew", ServerUnreachableError("away"), times=3)
    stage.checkpoints.fail("renew", InvariantError("a bug"))
    async with stage.running() as run:
        with pytest.raises(InvariantError):
            await run
    assert stage.checkpoints.calls["renew"] == 4


async def test_a_redis_that_lost_its_memory_is_told_everything(stage: Stage) -> None:
    """And the files of other instances, whose records are lost too, are looked at."""
    async with stage.running():
        await stage.scanner.runs.wait()
        stage.scanner.entries["theirs.mp4"] = STAMP
        stage.router.changed.clear()
        stage.checkpoints.wipe()
        await stage.router.changed.wait()
    after = stage.notes.told[stage.notes.told.index("remember folder") :]
    assert after[:3] == ["remember folder", "restore []", "create theirs.mp4"]


async def test_a_look_at_no_folder_ends_no_survey(stage: Stage) -> None:
    """It was unmounted just then: none of its files was looked up."""
    stage.scanner.sees_folder = False
    async with stage.running():
        await stage.scanner.runs.wait()
        await asyncio.sleep(5 * TURN_S)
        assert not stage.startup.surveyed.is_set()
        stage.scanner.sees_folder = True
        await stage.startup.surveyed.wait()


async def test_a_memory_that_is_lost_twice_is_restored_twice(stage: Stage) -> None:
    async with stage.running():
        for times in (1, 2):
            stage.startup.restored.clear()
            stage.checkpoints.wipe()
            await stage.startup.restored.wait()
            await asyncio.sleep(5 * TURN_S)
            assert stage.notes.told.count("restore []") == times, "it is being seen to"
            await stage.checkpoints.mark_used("f")
            stage.startup.is_surveying = False
            await asyncio.sleep(5 * TURN_S)
            assert stage.notes.told.count("restore []") == times
