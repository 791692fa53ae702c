"""What is described becomes jobs; while the engine of jobs is away it is owed, over a restart,
too."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from tests.support.fake_checkpoints import FakeCheckpointStore

from cefmp4.errors import PermanentError, ServerUnreachableError
from cefmp4.ingest.after.handover import Handover
from cefmp4.ingest.claims import Claims
from cefmp4.ingest.finished_index import FinishedIndex
from cefmp4.ingest.record import StreamRecord
from cefmp4.model.job import JobKind, JobSpec
from cefmp4.model.part import MIN_PART_BYTES
from cefmp4.model.stream import FileStamp, Stream, StreamState
from cefmp4.tasks import cancel_all

pytestmark = pytest.mark.leaps


@dataclass
class Engine:
    is_away: bool = False
    refuses: str = ""
    asked: list[str] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)

    async def submit(self, spec: JobSpec) -> bool:
        self.asked.append(spec.subject)
        if self.is_away:
            raise ServerUnreachableError("Temporal does not answer")
        if spec.subject == self.refuses:
            raise PermanentError("no such namespace")
        self.taken.append(spec.subject)
        self.kinds.append(spec.kind)
        return True


@dataclass
class Site:
    checkpoints: FakeCheckpointStore = field(default_factory=FakeCheckpointStore)
    engine: Engine = field(default_factory=Engine)
    index: FinishedIndex = field(default_factory=FinishedIndex)

    @property
    def claims(self) -> Claims:
        return Claims(checkpoints=self.checkpoints, owner="me", wall_clock=lambda: 1.0)

    def handover(
        self, kinds: tuple[JobKind, ...] = (JobKind.HLS,), *, calls_back: bool = False
    ) -> Handover:
        return Handover(
            sink=self.engine,
            claims=self.claims,
            index=self.index,
            kinds=kinds,
            calls_back=calls_back,
            bucket="b",
            watch_dir="/w",
            max_attempts=3,
        )

    async def described(self, name: str, playable: bool | None = True) -> StreamRecord:
        stream = Stream(
            id=name,
            relpath=f"{name}.mp4",
            part_base=MIN_PART_BYTES,
            state=StreamState.STORED,
            stamp=FileStamp(len(self.index) + 1, 1, 1, 1),
            playable=playable,
        )
        record = await self.claims.new(stream, {})
        await record.described(owes_jobs=True)
        return record

    async def concluded(self, handover: Handover, name: str) -> None:
        record = await self.described(name)
        await handover.now_or_later(record)
        self.index.add(record.stream)
        await record.release()

    async def state(self, name: str) -> tuple[StreamState, bool]:
        stream = await self.checkpoints.load_stream(name)
        assert stream is not None
        return stream.state, stream.owes_jobs


@asynccontextmanager
async def running(handover: Handover) -> AsyncIterator[None]:
    task = asyncio.create_task(handover.run())
    try:
        yield
        assert not task.done()
    finally:
        await cancel_all([task])


async def test_what_the_engine_takes_is_handed_over_at_once() -> None:
    site = Site()
    await site.concluded(site.handover(), "a")
    assert await site.state("a") == (StreamState.HANDED_OVER, False)


async def test_what_it_cannot_take_stays_described_and_keeps_nobody_waiting() -> None:
    site = Site(engine=Engine(is_away=True))
    handover = site.handover()
    for name in ("a", "b"):
        await site.concluded(handover, name)
        assert await site.state(name) == (StreamState.DESCRIBED, True)
    assert site.engine.asked == ["a"]  # the next one need not find out again


async def test_it_is_handed_over_in_its_order_when_the_engine_is_back() -> None:
    site = Site(engine=Engine(is_away=True))
    handover = site.handover()
    for name in ("a", "b"):
        await site.concluded(handover, name)
    async with running(handover):
        await asyncio.sleep(100)
        assert site.engine.taken == []
        site.engine.is_away = False
        await asyncio.sleep(100)
        assert site.engine.taken == ["a", "b"]
        for name in ("a", "b"):
            assert await site.state(name) == (StreamState.HANDED_OVER, False)
        assert {one.id: one.state for one in site.index.latest} == {
            "a": StreamState.HANDED_OVER,
            "b": StreamState.HANDED_OVER,
        }
        await site.concluded(handover, "c")
        assert await site.state("c") == (StreamState.HANDED_OVER, False)


async def test_what_a_former_run_owed_is_handed_over() -> None:
    site = Site()
    await (await site.described("a")).release()
    (stream,) = await site.checkpoints.load_streams()
    handover = site.handover()
    handover.owe(stream)
    async with running(handover):
        await asyncio.sleep(1)
    assert await site.state("a") == (StreamState.HANDED_OVER, False)


async def test_one_that_the_engine_refuses_holds_up_no_other() -> None:
    site = Site(engine=Engine(is_away=True, refuses="a"))
    handover = site.handover()
    for name in ("a", "b"):
        await site.concluded(handover, name)
    site.engine.is_away = False
    async with running(handover):
        await asyncio.sleep(100)
    assert site.engine.taken == ["b"]
    assert await site.state("a") == (StreamState.DESCRIBED, True)


async def test_what_was_forgotten_meanwhile_stays_forgotten() -> None:
    site = Site(engine=Engine(is_away=True))
    handover = site.handover()
    await site.concluded(handover, "a")
    (stream,) = await site.checkpoints.load_streams()
    await site.checkpoints.forget(stream)
    site.engine.is_away = False
    async with running(handover):
        await asyncio.sleep(100)
    assert await site.checkpoints.load_streams() == []


@pytest.mark.parametrize("playable", [True, False, None])
@pytest.mark.parametrize("kinds", [(JobKind.HLS,), ()])
async def test_of_every_recording_it_is_told_where_somebody_listens(
    kinds: tuple[JobKind, ...], playable: bool | None
) -> None:
    """Also of what cannot be played, and where nothing else is made."""
    site = Site()
    handover = site.handover(kinds, calls_back=True)
    record = await site.described("a", playable)
    assert handover.wants(record.stream)
    await handover.now_or_later(record)
    assert record.stream.state is StreamState.HANDED_OVER
    assert site.engine.kinds == [*(kinds if playable else ()), JobKind.CALLBACK]


@pytest.mark.parametrize("playable", [False, None])
async def test_nothing_is_made_of_what_cannot_be_played(playable: bool | None) -> None:
    site = Site()
    record = await site.described("a", playable)
    assert not site.handover().wants(record.stream)
    assert not site.handover(()).wants(record.stream)
