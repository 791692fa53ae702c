"""The checkpoint stores that keep to one contract: the fake, and Redis."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis
from tests.support.checkpoint_backend import Backend
from tests.support.fake_checkpoints import FakeCheckpointStore

from cefmp4.ports.checkpoints import CheckpointStore
from cefmp4.storage.redis.checkpoints import open_checkpoints


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def fake_backend() -> Backend:
    clock = Clock()
    fake = FakeCheckpointStore(lease_seconds=10, clock=clock)

    async def pass_time() -> None:
        clock.now += 11

    async def wipe() -> None:
        fake.wipe()

    return Backend(fake, pass_time, wipe)


@pytest.fixture
async def redis_backend(redis_url: str) -> AsyncIterator[Backend]:
    async with (
        Redis.from_url(redis_url) as client,
        open_checkpoints(redis_url, lease_seconds=60) as store,
    ):

        async def expire() -> None:
            for key in await client.keys("cefmp4:lease:*"):
                await client.pexpire(key, 1)
            await asyncio.sleep(0.01)
            assert not await client.keys("cefmp4:lease:*")

        yield Backend(store, expire, client.flushall)


@pytest.fixture(
    params=["fake_backend", pytest.param("redis_backend", marks=pytest.mark.integration)]
)
def backend(request: pytest.FixtureRequest) -> Backend:
    found: Backend = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def store(backend: Backend) -> CheckpointStore:
    return backend.store
