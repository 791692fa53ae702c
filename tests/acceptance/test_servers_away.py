"""Temporal, S3 or Redis is away for a while in the middle of encodes, with recordings that grow: no
job is lost or counted, and uploads go on or wait. CEFMP4_AWAY_S says for how long."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support.job_workers import PATIENCE_S, Yard, encoded, open_yard
from tests.support.servers import SwiftServer
from tests.support.service import reached

from cefmp4.model.job import JobKind, JobState, Step, job_id_of
from cefmp4.model.stream import StreamState

pytestmark = [
    pytest.mark.integration,
    pytest.mark.acceptance,
    pytest.mark.faults,
    pytest.mark.long,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(600),
]

AWAY_S = float(os.environ.get("CEFMP4_AWAY_S", "10"))
WORKERS = 2
SECONDS = 60  # of media: nobody is done before the server goes
BEFORE, MEANWHILE = ("a.mp4", "b.mp4", "c.mp4"), ("d.mp4",)


@dataclass(frozen=True, slots=True)
class Ground:
    yard: Yard
    clip: bytes

    def record(self, *names: str) -> None:
        for number, name in enumerate(names):
            (self.yard.site.watched / name).write_bytes(self.clip + bytes(number))

    async def in_mid_encode(self) -> None:
        """Two encodes have begun and the third one waits. Nobody is just giving an answer, which a
        Temporal that goes in that moment would lose."""

        async def are_encoded() -> bool:
            jobs = await self.yard.desk.latest([JobState.IN_PROGRESS, JobState.QUEUED], 9)
            return len(jobs) == len(BEFORE) and {job.step for job in jobs} == {Step.ENCODE}

        assert await reached(are_encoded, 60)
        assert len(self.yard.begun(step=Step.ENCODE)) == WORKERS

    async def states(self) -> dict[str, StreamState]:
        return {path: stream.state for path, stream in (await self.yard.site.streams()).items()}

    async def are_in(self, state: StreamState, *names: str) -> bool:
        states = await self.states()
        return all(states.get(name) is state for name in names)

    async def check_all_is_done(self) -> None:
        """Every recording has one job, which is complete at its first attempt."""
        names = (*BEFORE, *MEANWHILE)
        assert await reached(lambda: self.are_in(StreamState.HANDED_OVER, *names), PATIENCE_S), (
            await self.states()
        )
        streams = await self.yard.site.streams()
        self.yard.submitted[:] = [job_id_of(one.id, JobKind.HLS) for one in streams.values()]
        assert len(self.yard.submitted) == len(names)
        await self.yard.check_all_is_tidy()
        assert {job.attempts for job in await self.yard.jobs()} == {1}
        for name in names:
            held = await self.yard.site.held(name)
            assert held.faults(self.yard.site.watched / name) == []
        assert self.yard.site.errors() == []


@asynccontextmanager
async def open_ground(s3_server: SwiftServer, folder: Path) -> AsyncIterator[Ground]:
    changes = {"HLS_THUMBNAILS": "false", "CPU_SLOTS": "1"}
    async with open_yard(s3_server, folder, **changes) as yard:
        clip = Path((await encoded(folder, SECONDS)).path)
        ground = Ground(yard, await asyncio.to_thread(clip.read_bytes))
        await asyncio.gather(yard.start_workers(WORKERS), yard.site.service.start())
        ground.record(*BEFORE)
        await ground.in_mid_encode()
        yield ground
        assert await yard.site.service.stop() == 0


async def test_temporal_is_away(s3_server: SwiftServer, tmp_path: Path) -> None:
    """What is recorded meanwhile is stored, described, and handed over when it is back."""
    async with open_ground(s3_server, tmp_path) as ground:
        await ground.yard.temporal.stop()
        ground.record(*MEANWHILE)
        assert await reached(
            lambda: ground.are_in(StreamState.DESCRIBED, *MEANWHILE), PATIENCE_S
        ), await ground.states()
        await asyncio.sleep(AWAY_S)
        assert await ground.are_in(StreamState.DESCRIBED, *MEANWHILE)
        await ground.yard.temporal.start()
        await ground.check_all_is_done()


async def test_s3_is_away(s3_server: SwiftServer, tmp_path: Path) -> None:
    async with open_ground(s3_server, tmp_path) as ground:
        await ground.yard.s3.stop()
        ground.record(*MEANWHILE)
        await asyncio.sleep(AWAY_S)
        await ground.yard.s3.start()
        await ground.check_all_is_done()


async def test_redis_is_away(s3_server: SwiftServer, tmp_path: Path) -> None:
    async with open_ground(s3_server, tmp_path) as ground:
        await ground.yard.site.valkey.stop()
        ground.record(*MEANWHILE)
        await asyncio.sleep(AWAY_S)
        await ground.yard.site.valkey.start()
        await ground.check_all_is_done()


async def test_redis_is_emptied(s3_server: SwiftServer, tmp_path: Path) -> None:
    """The service finds its streams again, and their jobs are known."""
    async with open_ground(s3_server, tmp_path) as ground:
        await ground.yard.site.valkey.flush()
        ground.record(*MEANWHILE)
        await ground.check_all_is_done()
