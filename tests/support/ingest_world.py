"""What streams are made of in unit tests: stores in memory, a real folder, a clock by hand."""

import os
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio
from tests.support.fake_checkpoints import FakeCheckpointStore
from tests.support.fake_store import FakeObjectStore

from cefmp4.ingest.admission import Admission
from cefmp4.ingest.admitted import Admitted
from cefmp4.ingest.claims import Claims
from cefmp4.ingest.fate import End
from cefmp4.ingest.finished_index import FinishedIndex
from cefmp4.ingest.object_keys import ObjectKeys
from cefmp4.ingest.part_slots import PartSlots
from cefmp4.ingest.processor import StreamProcessor, StreamTools
from cefmp4.ingest.recover.bucket_search import BucketSearch
from cefmp4.ingest.recover.recovery import Recovery
from cefmp4.ingest.rules import WaitingTimes
from cefmp4.ingest.uploader import Uploader
from cefmp4.ingest.writer_profile import WriterProfiles
from cefmp4.model.names import DEFAULT_KEY_TEMPLATE, KeyConflict
from cefmp4.model.part import MIN_PART_BYTES, PartPlan
from cefmp4.model.stream import StreamState
from cefmp4.recording.clocks import Clocks
from cefmp4.recording.identity import Identity
from cefmp4.recording.write_guard import WriteGuards
from cefmp4.retry import no_waiting

PART = MIN_PART_BYTES


@dataclass
class Clock:
    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now

    def pass_by(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class World:
    folder: Path
    write_guards: WriteGuards
    hashing: ThreadPoolExecutor
    store: FakeObjectStore = field(default_factory=FakeObjectStore)
    checkpoints: FakeCheckpointStore = field(default_factory=FakeCheckpointStore)
    clock: Clock = field(default_factory=Clock)
    index: FinishedIndex = field(default_factory=FinishedIndex)
    writer_profiles: WriterProfiles = field(default_factory=WriterProfiles)
    template: str = DEFAULT_KEY_TEMPLATE
    on_conflict: KeyConflict = KeyConflict.SUFFIX

    @property
    def keys(self) -> ObjectKeys:
        return ObjectKeys(self.store, self.template, self.on_conflict)

    def write(self, data: bytes, at: int = 0, name: str = "r.mp4") -> None:
        path = self.folder / name
        with path.open("r+b" if path.exists() else "wb") as file:
            file.seek(at)
            file.write(data)

    @property
    def uploader(self) -> Uploader:
        slots = PartSlots(max_parts=4, max_streams=4)
        return Uploader(store=self.store, slots=slots, hashing=self.hashing)

    def claims(self, owner: str = "me") -> Claims:
        return Claims(checkpoints=self.checkpoints, owner=owner, wall_clock=self.clock)

    def admission(self, owner: str = "me") -> Admission:
        return Admission(
            root=str(self.folder),
            host="here",
            plan=PartPlan(PART),
            keys=self.keys,
            index=self.index,
            claims=self.claims(owner),
            store=self.store,
            recovery=Recovery(store=self.store, hashing=self.hashing, plan=PartPlan(PART)),
            bucket_search=BucketSearch(
                store=self.store, prefix="streams/", hashing=self.hashing, plan=PartPlan(PART)
            ),
            identity=Identity(hashing=self.hashing),
        )

    async def admit(self, name: str = "r.mp4", owner: str = "me") -> StreamProcessor | None:
        admitted = await self.admission(owner).admit(name)
        return None if admitted is None else self.processor(admitted)

    def processor(
        self, admitted: Admitted, made: type[StreamProcessor] = StreamProcessor
    ) -> StreamProcessor:
        tools = StreamTools(
            uploader=self.uploader,
            keys=self.keys,
            write_guards=self.write_guards,
            writer_profiles=self.writer_profiles,
            times=WaitingTimes(settle=2.0, unknown_writer=10.0, idle=30.0),
            clocks=Clocks(monotonic=self.clock, wall=self.clock),
            trusts_ctime=False,
        )
        return made(admitted, tools)

    async def look(self, processor: StreamProcessor) -> None:
        processor.observe(processor.source.look())
        await processor._guarded_step()

    async def finish(self, processor: StreamProcessor) -> End:
        """The writer is done: quiet for the settle time."""
        await self.look(processor)
        for _ in range(10):
            if processor.end is not None:
                break
            self.clock.pass_by(3.0)
            await self.look(processor)
        assert processor.end is not None, processor
        return processor.end

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
async def world(tmp_path: Path, hashing: ThreadPoolExecutor) -> AsyncIterator[World]:
    async with WriteGuards() as write_guards:
        with no_waiting():
            made = World(tmp_path, write_guards, hashing)
            await made.checkpoints.mark_used()  # as a start does
            yield made


def bytes_of(size: int) -> bytes:
    return os.urandom(size)


async def open_growing(world: World, data: bytes) -> StreamProcessor:
    """A stream whose writer has the file open and has written `data`."""
    world.write(data)
    processor = await world.admit()
    assert processor is not None
    await world.look(processor)
    return processor
