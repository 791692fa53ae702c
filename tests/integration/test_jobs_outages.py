"""Outages: of servers, of Redis, of a host. No job is to blame for them, and none is lost."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from tests.faults.redis_proxy import RedisProxy
from tests.support.job_workers import (
    Workers,
    begun_by,
    client,
    ended,
    is_begun,
    queue,
    spec,
    until,
    workers,
)

from cefmp4.errors import TransientError
from cefmp4.jobs.queue import JobQueue
from cefmp4.jobs.reconcile import Reconciler
from cefmp4.model.job import FailReason, Job, JobKind, Lane

__all__ = ["queue", "workers"]

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("mode", ["away", "program"])
async def test_what_no_job_is_to_blame_for_uses_up_no_attempt(
    queue: JobQueue, workers: Workers, mode: str
) -> None:
    """A server that is away, or a host without ffmpeg, must not fail the whole queue."""
    workers.start()
    await queue.submit(spec("w", mode=mode, times="5"))
    job = await ended(queue, "w-hls", 30)
    assert job.is_complete, job.error
    assert job.attempts == 1


def through(proxy: RedisProxy, url: str) -> str:
    return url.replace(f":{urlsplit(url).port}/", f":{proxy.port}/")


@pytest_asyncio.fixture
async def proxy(redis_url: str) -> AsyncIterator[RedisProxy]:
    opened = RedisProxy(urlsplit(redis_url).port or 0)
    await opened.start()
    yield opened
    await opened.stop()


async def test_an_outage_of_redis_takes_no_job_from_a_living_worker(
    queue: JobQueue, workers: Workers, proxy: RedisProxy, redis_url: str
) -> None:
    workers.url = through(proxy, redis_url)
    for host in ("one", "two"):
        workers.start(host=host, lease=2)

    async def are_ready() -> bool:
        return workers.log.read_text().count("ready for jobs") == 2

    await until(are_ready, 30, "both workers")  # one that never saw Redis away trusts leases
    await queue.submit(spec("o", seconds="9"))
    async with client(redis_url) as redis:
        await until(lambda: is_begun(redis, "o-hls"), 15, "attempt")
        await proxy.stop()
        await asyncio.sleep(4)  # longer than the lease
        await proxy.start()
        assert (await ended(queue, "o-hls", 30)).attempts == 1
        assert len(await begun_by(redis, "o-hls")) == 1


async def test_a_worker_leaves_though_redis_is_away(
    queue: JobQueue, workers: Workers, proxy: RedisProxy, redis_url: str
) -> None:
    workers.url = through(proxy, redis_url)
    process = workers.start(lease=2)
    await queue.submit(spec("l", seconds="60"))
    async with client(redis_url) as redis:
        await until(lambda: is_begun(redis, "l-hls"), 15, "attempt")
    await proxy.stop()
    process.terminate()
    assert await asyncio.to_thread(process.wait, 40) == 0


def reconciler_of(
    queue: JobQueue,
    discard: Callable[[Job, int], Awaitable[None]],
    clock: Callable[[], float] = time.monotonic,
) -> Reconciler:
    return Reconciler(
        queue,
        kinds=[JobKind.HLS],
        is_dead=lambda _owner: False,
        discard=discard,
        backoff_s=lambda _attempt: 0.0,
        clock=clock,
    )


async def test_what_a_failed_job_left_is_cleared_away_when_the_store_is_back(
    queue: JobQueue,
) -> None:
    asked = list[str]()

    async def discard(job: Job, _fence: int) -> None:
        asked.append(job.id)
        if len(asked) == 1:
            raise TransientError("1 objects of attempt a1 are left")

    reconciler = reconciler_of(queue, discard)
    for name in ("f", "g"):
        await queue.submit(spec(name))
        job = await queue.ledger.begin(
            Lane.HLS_LOOK, owner="host|1", slot="", offered=f"{name}-hls"
        )
        assert job is not None
        assert await queue.ledger.fail(job.id, job.fence, FailReason.ERROR, "no video in it")
    await reconciler.step()
    (left,) = await queue.ledger.littered()
    assert sorted(asked) == ["f-hls", "g-hls"]  # the other did not wait for it
    await reconciler.step()
    assert asked[2:] == [left.id]
    assert await queue.ledger.littered() == []


async def test_a_look_that_had_to_wait_for_redis_takes_no_job_either(queue: JobQueue) -> None:
    """Its answer may come from a Redis that nobody could reach while the leases ended."""
    await queue.submit(spec("s"))
    job = await queue.ledger.begin(Lane.HLS_LOOK, owner="far|1", slot="", offered="s-hls")
    assert job is not None

    async def is_over() -> bool:
        return [attempt.is_over for attempt in await queue.ledger.running()] == [True]

    await until(is_over, 15, "the end of its lease")
    moments = iter([0.0, 5.0, 5.0, 5.0, 15.1, 15.2, 15.2])  # the first look takes five seconds
    reconciler = reconciler_of(queue, _nothing, lambda: next(moments))
    assert await reconciler.step() == []
    assert await reconciler.step() == ["s-hls"]


async def _nothing(_job: Job, _fence: int) -> None:
    """Nothing was written."""
