"""A router with all it needs, on stores in memory and real files."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest_asyncio
from tests.support.rig import Rig

from cefmp4.ingest.processor import StreamProcessor
from cefmp4.ingest.router import StreamRouter
from cefmp4.model.event import EventKind, StreamEvent
from cefmp4.model.stream import Stream, StreamState
from cefmp4.recording.write_guard import WriteGuard, WriteGuards, WriteGuardState

DATE = 1_700_000_000
PLACES = 4


class HeldOpen(WriteGuards):
    """As if each file had a writer, until they are let go."""

    def __init__(self, real: WriteGuards) -> None:
        super().__init__()
        self._real = real
        self.are_held = True

    def hold(self, fd: int, on_broken: Callable[[], None] | None = None) -> WriteGuard:
        return self._real.hold(fd, on_broken)

    def writer_state(self, fd: int) -> WriteGuardState:
        return WriteGuardState.WRITER if self.are_held else self._real.writer_state(fd)


@dataclass
class RoutedRig:
    """A router whose streams come to their end as soon as their writers are let go."""

    rig: Rig
    writers: HeldOpen = field(init=False)
    router: StreamRouter = field(init=False)

    def __post_init__(self) -> None:
        self.writers = HeldOpen(self.rig.write_guards)
        self.router = self.rig.service(write_guards=self.writers).router
        self.router.max_active = PLACES

    def let_go(self) -> None:
        self.writers.are_held = False
        for processor in self.router.processors:
            processor.notify(EventKind.CLOSE)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not condition():  # noqa: ASYNC110  # what a router has begun sets no event
                await asyncio.sleep(0.01)

    async def at_work(self) -> StreamProcessor:
        """The only one, when it has done what it can do for now."""
        await self.until(lambda: self.router.processors)
        await asyncio.sleep(0.1)
        (processor,) = self.router.processors
        return processor

    def tell(self, kind: EventKind, name: str, former: str | None = None) -> None:
        self.router.handle([StreamEvent(kind=kind, relpath=name, moved_from=former)])

    def write(self, data: bytes, name: str = "r.mp4") -> None:
        self.rig.write(data, name=name)
        os.utime(self.rig.folder / name, (DATE, DATE))

    async def settled(self) -> None:
        """Nothing goes on any more, nor begins again."""
        while tasks := [work.task for work in self.router._work.values() if work.task]:
            await asyncio.wait(tasks)

    async def sending(self, name: str = "r.mp4") -> StreamProcessor:
        """A part of it is stored, and its writer goes on."""
        self.tell(EventKind.CREATE, name)
        processor = await self.at_work()
        assert processor.record.parts
        return processor

    async def stored(self, name: str = "r.mp4") -> Stream:
        self.let_go()
        self.tell(EventKind.CREATE, name)
        await self.settled()
        return await self.known(name)

    async def known(self, name: str) -> Stream:
        stream = await self.rig.checkpoints.load_stream_at("", name)
        assert stream is not None
        return stream

    async def assert_holds(self, name: str, data: bytes) -> Stream:
        stream = await self.known(name)
        assert stream.state is StreamState.DESCRIBED, stream.reason
        assert self.rig.store.data(stream.key) == data
        return stream


@pytest_asyncio.fixture
async def routed(rig: Rig) -> AsyncIterator[RoutedRig]:
    made = RoutedRig(rig)
    yield made
    await made.router.drain(1.0)
