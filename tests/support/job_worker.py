"""Workers in the process of a test, on a real engine of jobs that knows of nothing else."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from tests.support.temporal_server import CODEC_KEY, TemporalServer

from cefmp4.jobs import flow
from cefmp4.jobs.slots import Slots
from cefmp4.jobs.steps import Host, JobProcedure
from cefmp4.jobs.workplace import open_workplace
from cefmp4.model.job import Job, JobKind, SlotKind
from cefmp4.temporal.connect import EngineConfig, connect
from cefmp4.temporal.desk import Desk
from cefmp4.temporal.worker import working

ONE_CPU = {SlotKind.CPU: 1}


@dataclass(frozen=True, slots=True)
class Workshop:
    desk: Desk
    address: str
    namespace: str
    folder: Path

    @asynccontextmanager
    async def worker(
        self,
        procedure: JobProcedure,
        *,
        name: str = "one",
        slots: Mapping[SlotKind, int] = ONE_CPU,
        address: str = "",
    ) -> AsyncIterator[Host]:
        """Hands back at once what it has when the context ends. `address`: its own way there."""
        config = config_of(address or self.address, self.namespace)
        client = await connect(config, identity=name, is_lazy=False)
        with open_workplace(self.folder) as workplace:
            host = Host(
                procedures={JobKind.HLS: procedure}, slots=Slots(slots), workplace=workplace
            )
            async with working(client, host, drain_s=0):
                yield host

    async def ended(self, job_id: str, seconds: float = 60) -> Job:
        async def has_ended() -> bool:
            return (await self.desk.get(job_id)).is_final

        await until(has_ended, seconds, f"end of {job_id}")
        return await self.desk.get(job_id)


def config_of(address: str, namespace: str) -> EngineConfig:
    return EngineConfig(address=address, namespace=namespace, codec_key=CODEC_KEY)


@asynccontextmanager
async def new_workshop(server: TemporalServer, folder: Path) -> AsyncIterator[Workshop]:
    """Of an engine that has heard of no job."""
    namespace = await server.new_namespace()
    client = await connect(config_of(server.address, namespace), identity="tests")
    yield Workshop(Desk(client), server.address, namespace, folder / "work")


@pytest_asyncio.fixture
async def workshop(
    temporal_server: TemporalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Workshop]:
    monkeypatch.setattr(flow, "FIRST_PAUSE_S", 0.1)
    async with new_workshop(temporal_server, tmp_path) as opened:
        yield opened


async def until(condition: Callable[[], Awaitable[bool]], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.05)
