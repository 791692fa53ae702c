"""A router with all it needs, on stores in memory and real files."""

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest_asyncio
from tests.support.ingest_world import World
from tests.support.playable import PLAYABLE

from cefmp4.ingest.admitted import Admitted
from cefmp4.ingest.after.completion import Completion
from cefmp4.ingest.after.describer import Describer
from cefmp4.ingest.after.handover import Handover
from cefmp4.ingest.after.local_file import LocalFilePolicy
from cefmp4.ingest.fate import End
from cefmp4.ingest.part_slots import PartSlots
from cefmp4.ingest.processor import StreamProcessor
from cefmp4.ingest.router import StreamRouter
from cefmp4.model.event import EventKind, StreamEvent
from cefmp4.model.job import JobSpec
from cefmp4.model.stream import Stream, StreamState
from cefmp4.recording.clocks import Clocks
from cefmp4.recording.identity import Identity
from cefmp4.watch.selection import Selection

DATE = 1_700_000_000


class NoJobs:
    async def submit(self, spec: JobSpec) -> bool:
        raise AssertionError(spec)


@dataclass
class Site:
    """A router whose streams come to their end as soon as their writers are let go."""

    world: World
    sends: asyncio.Event = field(default_factory=asyncio.Event)
    writers_end: asyncio.Event = field(default_factory=asyncio.Event)
    router: StreamRouter = field(init=False)

    def __post_init__(self) -> None:
        world, slots = self.world, PartSlots(max_parts=4, max_streams=4)
        admission = world.admission()
        site = self

        class Driven(StreamProcessor):
            async def run(self) -> End:
                await world.look(self)
                site.sends.set()
                await site.writers_end.wait()
                return await world.finish(self)

        def make(admitted: Admitted) -> StreamProcessor:
            return world.processor(admitted, Driven)

        self.router = StreamRouter(
            admission=admission,
            selection=Selection(world.folder, ("*.mp4",)),
            completion=Completion(
                describer=Describer(
                    store=world.store,
                    probe=PLAYABLE,
                    slots=slots,
                    identity=Identity(hashing=world.hashing),
                    bucket="b",
                    watch_dir=str(world.folder),
                ),
                handover=Handover(
                    sink=NoJobs(), kinds=(), bucket="b", watch_dir="/", max_attempts=1
                ),
                local_file=LocalFilePolicy("keep"),
                index=world.index,
                claims=world.claims(),
                store=world.store,
            ),
            slots=slots,
            clocks=Clocks(monotonic=world.clock, wall=world.clock),
            make_processor=make,
            max_active=4,
            foreign_pause_s=1.0,
        )

    def tell(self, kind: EventKind, name: str, former: str | None = None) -> None:
        self.router.handle([StreamEvent(kind=kind, relpath=name, moved_from=former)])

    def write(self, data: bytes, name: str = "r.mp4") -> None:
        self.world.write(data, name=name)
        os.utime(self.world.folder / name, (DATE, DATE))

    async def settled(self) -> None:
        """Nothing goes on any more, nor begins again."""
        while tasks := [work.task for work in self.router._work.values() if work.task]:
            await asyncio.wait(tasks)

    async def sending(self, name: str = "r.mp4") -> StreamProcessor:
        """A part of it is stored, and its writer goes on."""
        self.tell(EventKind.CREATE, name)
        await self.sends.wait()
        (processor,) = self.router.processors
        assert processor.record.parts
        return processor

    async def stored(self, name: str = "r.mp4") -> Stream:
        self.writers_end.set()
        self.tell(EventKind.CREATE, name)
        await self.settled()
        return await self.known(name)

    async def known(self, name: str) -> Stream:
        stream = await self.world.checkpoints.load_stream_at("", name)
        assert stream is not None
        return stream

    async def assert_holds(self, name: str, data: bytes) -> Stream:
        stream = await self.known(name)
        assert stream.state is StreamState.DESCRIBED, stream.reason
        assert self.world.store.data(stream.key) == data
        return stream


@pytest_asyncio.fixture
async def site(world: World) -> AsyncIterator[Site]:
    made = Site(world)
    yield made
    await made.router.drain(1.0)
