"""What streams are made of in unit tests: stores in memory, a real folder, a time that leaps and a
clock that can be put forward. What deals with them is built as for the service."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.support.fake_checkpoints import FakeCheckpointStore
from tests.support.fake_store import FakeObjectStore
from tests.support.leaping_loop import LeapingLoop
from tests.support.playable import PLAYABLE

from cefmp4.app.builder import Ports, build_ingest
from cefmp4.config.ingest import WatchMode
from cefmp4.config.settings import Settings
from cefmp4.ingest.fate import End
from cefmp4.ingest.finished_index import FinishedIndex
from cefmp4.ingest.folder import FolderFinder, FoundFolder
from cefmp4.ingest.processor import StreamProcessor
from cefmp4.ingest.service import IngestService
from cefmp4.model.folder import WatchedFolder
from cefmp4.model.job import JobSpec
from cefmp4.model.part import MIN_PART_BYTES
from cefmp4.model.stream import StreamState
from cefmp4.recording.clocks import Clocks
from cefmp4.recording.write_guard import WriteGuards
from cefmp4.watch.folder_marks import place_of

PART = MIN_PART_BYTES
LONG_S = 10_000.0


class NoJobs:
    async def submit(self, spec: JobSpec) -> bool:
        raise AssertionError(spec)


@dataclass
class Clock:
    """The time of the loop, and what it was put forward by hand."""

    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    forward_s: float = 0.0

    def __call__(self) -> float:
        return self.loop.time() + self.forward_s

    def pass_by(self, seconds: float) -> None:
        self.forward_s += seconds


@dataclass
class Rig:
    folder: Path
    write_guards: WriteGuards
    hashing: ThreadPoolExecutor
    store: FakeObjectStore = field(default_factory=FakeObjectStore)
    checkpoints: FakeCheckpointStore = field(default_factory=FakeCheckpointStore)
    clock: Clock = field(default_factory=Clock)
    settings: Settings = field(init=False)
    _services: dict[str, IngestService] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.settings = Settings(
            watch_dir=self.folder,
            watch_mode=WatchMode.POLLING,
            watch_filter_globs=("*.mp4",),
            instance_id="here",
            chunk_size_bytes=PART,
            max_parts_in_flight=4,
            max_concurrent_streams=4,
            lease_seconds=3,
            handover_jobs=(),
        )

    def set(self, **settings: Any) -> None:
        """Before anything is built by them."""
        assert not self._services
        self.settings = self.settings.model_copy(update=settings)

    def service(self, owner: str = "me", write_guards: WriteGuards | None = None) -> IngestService:
        """Its loops do not run."""
        if owner not in self._services:
            ports = Ports(
                owner=owner,
                checkpoints=self.checkpoints,
                store=self.store,
                jobs=NoJobs(),
                probe=PLAYABLE,
                clocks=Clocks(monotonic=self.clock, wall=self.clock),
                write_guards=write_guards or self.write_guards,
                hashing=self.hashing,
            )
            finder = FolderFinder(
                root=str(self.folder), named="", host="here", checkpoints=self.checkpoints
            )
            place = place_of(str(self.folder))
            assert place is not None
            found = FoundFolder(folder=WatchedFolder(id=""), place=place, mounts=frozenset())
            service = build_ingest(self.settings, ports, finder=finder, found=found)
            self._services[owner] = service
        return self._services[owner]

    @property
    def index(self) -> FinishedIndex:
        return self.service().index

    def write(self, data: bytes, at: int = 0, name: str = "r.mp4") -> None:
        path = self.folder / name
        with path.open("r+b" if path.exists() else "wb") as file:
            file.seek(at)
            file.write(data)

    async def admit(self, name: str = "r.mp4", owner: str = "me") -> StreamProcessor | None:
        router = self.service(owner).router
        admitted = await router.admission.admit(name)
        return None if admitted is None else router.make_processor(admitted)

    async def step(self, processor: StreamProcessor) -> None:
        """One of its loop, without a look at the file before."""
        await processor._guarded_step()

    async def look(self, processor: StreamProcessor) -> None:
        processor.observe(processor.source.look())
        await self.step(processor)

    async def finish(self, processor: StreamProcessor) -> End:
        """The writer is done, and is seen to be: what follows is a matter of waiting."""
        processor.observe(processor.source.look())
        async with asyncio.timeout(LONG_S):
            return await processor.run()

    async def stored(self, name: str = "r.mp4") -> StreamProcessor:
        processor = await self.admit(name)
        assert processor is not None
        assert await self.finish(processor) is End.STORED
        await processor.record.move_to(StreamState.DESCRIBED)
        self.index.add(processor.record.stream)
        await processor.record.release()
        return processor


@pytest.fixture
def hashing() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest_asyncio.fixture
async def rig(tmp_path: Path, hashing: ThreadPoolExecutor) -> AsyncIterator[Rig]:
    async with ready_write_guards() as write_guards:
        made = Rig(tmp_path, write_guards, hashing)
        await made.checkpoints.mark_used()  # as a start does
        yield made


@asynccontextmanager
async def ready_write_guards() -> AsyncIterator[WriteGuards]:
    """The process beside it needs a moment, in which no time may leap."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, LeapingLoop)
    async with AsyncExitStack() as stack:
        with loop.waiting_outside():
            write_guards = await stack.enter_async_context(WriteGuards())
        yield write_guards


def bytes_of(size: int) -> bytes:
    return os.urandom(size)


async def open_growing(rig: Rig, data: bytes) -> StreamProcessor:
    """A stream whose writer has the file open and has written `data`."""
    rig.write(data)
    processor = await rig.admit()
    assert processor is not None
    await rig.look(processor)
    return processor
