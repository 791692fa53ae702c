"""The queue of jobs over worker processes that are killed, stopped and told to leave."""

import asyncio
import os
import random
import signal
import subprocess
import time
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from redis.asyncio import Redis
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

from cefmp4.jobs.queue import JobQueue
from cefmp4.model.job import FailReason, JobKind, JobState

__all__ = ["client", "queue", "workers"]

pytestmark = pytest.mark.integration


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


async def leave(process: subprocess.Popen[bytes]) -> int:
    """One that was started a moment ago must be far enough to know what the signal means."""

    async def is_listening() -> bool:
        status = await asyncio.to_thread(Path(f"/proc/{process.pid}/status").read_text)
        caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
        return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)

    await until(is_listening, 15, "the worker handles SIGTERM")
    process.terminate()
    return await asyncio.to_thread(process.wait, 15)


async def submit(queue: JobQueue, count: int, **params: str) -> list[str]:
    specs = [replace(spec(f"s{number:03}"), params=params) for number in range(count)]
    for one in specs:
        assert await queue.submit(one)
    return [one.id for one in specs]


async def all_complete(queue: JobQueue, ids: list[str]) -> bool:
    jobs = [await queue.ledger.get(job_id) for job_id in ids]
    assert not [job for job in jobs if job.has_failed]
    return all(job.is_complete for job in jobs)


async def assert_one_result(queue: JobQueue, redis: Redis, job_id: str) -> None:
    """Published once, by the attempt whose result was accepted, with no other output left."""
    job = await queue.ledger.get(job_id)
    assert job.is_complete
    assert job.result == {"made_by": job.accepted}
    assert await redis.smembers(f"test:published:{job_id}") == {str(job.accepted)}
    assert await outputs(redis, job_id) == [job.accepted]


async def outputs(redis: Redis, job_id: str) -> list[int]:
    return [int(str(key).rsplit(":", 1)[1]) for key in await redis.keys(f"test:out:{job_id}:*")]


async def has_no_outputs(redis: Redis, job_id: str) -> bool:
    return not await outputs(redis, job_id)


async def test_two_workers_share_twenty_jobs_and_one_may_leave(
    queue: JobQueue, workers: Workers, redis_url: str
) -> None:
    first, second = workers.start(), workers.start()
    async with client(redis_url) as redis:
        await queue.submit(spec("warm-a", seconds="1.5"))
        await queue.submit(spec("warm-b", seconds="1.5"))
        await until(lambda: is_begun(redis, "warm-a-hls"), 15, "first worker")
        await until(lambda: is_begun(redis, "warm-b-hls"), 15, "second worker")
        ids = await submit(queue, 20, seconds="0.3")
        await until(lambda: is_begun(redis, ids[11]), 30, "half of the jobs")
        shares = Counter([pid for one in ids for pid in await begun_by(redis, one)])
        assert min(shares[first.pid], shares[second.pid]) >= 4, shares
        assert await leave(first) == 0
        await until(lambda: all_complete(queue, ids), 30, "all jobs")
        for one in ids:
            await assert_one_result(queue, redis, one)
            assert (await queue.ledger.get(one)).attempts == 1  # the released one is given back


async def test_thirty_kills_lose_nothing_and_finish_everything_once(
    queue: JobQueue, workers: Workers, redis_url: str
) -> None:
    seed = random.randrange(10**6)
    dice = random.Random(seed)
    specs = [spec(f"k{number:02}", seconds="0.8") for number in range(12)]
    for one in specs:
        await queue.submit(replace(one, max_attempts=100))
    pair = [workers.start(lease=1, redelivery=2), workers.start(lease=1, redelivery=2)]
    for _ in range(30):
        await asyncio.sleep(dice.uniform(0.3, 1.6))
        place = dice.randrange(2)
        kill(pair[place])
        pair[place] = workers.start(lease=1, redelivery=2)
    ids = [one.id for one in specs]
    await until(lambda: all_complete(queue, ids), 40, f"all jobs (seed {seed})")
    async with client(redis_url) as redis:
        for job_id in ids:
            await assert_one_result(queue, redis, job_id)
    for process in pair:
        assert await leave(process) == 0
    assert list(workers.folder.glob("worker-*")) == []


async def test_a_killed_workers_job_runs_elsewhere_soon(
    queue: JobQueue, workers: Workers, redis_url: str
) -> None:
    """With the lease and the redelivery time that are the defaults."""
    first = workers.start(lease=10, redelivery=15)
    await queue.submit(spec("a", seconds="3"))
    async with client(redis_url) as redis:
        await until(lambda: is_begun(redis, "a-hls"), 15, "first attempt")
        workers.start(lease=10, redelivery=15)
        kill(first)
        await until(lambda: is_begun(redis, "a-hls", 2), 30, "second attempt")
        await ended(queue, "a-hls")
        await assert_one_result(queue, redis, "a-hls")


async def test_a_zombies_result_is_fenced_off(
    queue: JobQueue, workers: Workers, redis_url: str
) -> None:
    zombie = workers.start(lease=1)
    await queue.submit(spec("z", seconds="1"))
    async with client(redis_url) as redis:
        await until(lambda: is_begun(redis, "z-hls"), 15, "first attempt")
        os.kill(zombie.pid, signal.SIGSTOP)
        workers.start(lease=1)
        job = await ended(queue, "z-hls")
        assert await begun_by(redis, "z-hls") != [zombie.pid]
        os.kill(zombie.pid, signal.SIGCONT)

        async def only_accepted() -> bool:
            return await outputs(redis, "z-hls") == [job.accepted]

        await until(only_accepted, 10, "the zombie's output is gone")
        assert await leave(zombie) == 0
        await assert_one_result(queue, redis, "z-hls")
        assert (await queue.ledger.get("z-hls")).accepted == job.accepted


async def test_a_cancel_reaches_a_running_job_and_a_waiting_one(
    queue: JobQueue, workers: Workers, redis_url: str
) -> None:
    workers.start()
    await queue.submit(spec("long", seconds="60"))
    await queue.submit(spec("next", seconds="60"))
    async with client(redis_url) as redis:
        await until(lambda: is_begun(redis, "long-hls"), 15, "attempt")
        assert await queue.cancel("next-hls") is JobState.QUEUED
        assert await queue.cancel("long-hls") is JobState.IN_PROGRESS
        for job_id in ("next-hls", "long-hls"):
            assert (await ended(queue, job_id, 5)).reason is FailReason.CANCELLED
        await until(lambda: has_no_outputs(redis, "long-hls"), 10, "the output is gone")
    await queue.submit(spec("after"))
    assert (await ended(queue, "after-hls")).is_complete


@pytest.mark.alone
async def test_a_stopped_worker_releases_its_job(
    queue: JobQueue, workers: Workers, redis_url: str
) -> None:
    first = workers.start()
    await queue.submit(spec("r", seconds="3"))
    async with client(redis_url) as redis:
        await until(lambda: is_begun(redis, "r-hls"), 15, "attempt")
        started = time.monotonic()
        assert await leave(first) == 0
        assert time.monotonic() - started < 5
        job = await queue.ledger.get("r-hls")
        assert (job.state, job.attempts) == (JobState.QUEUED, 0)
        workers.start()
        assert (await ended(queue, "r-hls")).attempts == 1
        await assert_one_result(queue, redis, "r-hls")
    assert list(workers.folder.glob("*/*")) == []


async def test_failures_end_where_they_should(
    queue: JobQueue, workers: Workers, redis_url: str
) -> None:
    workers.start()
    await queue.submit(spec("p", mode="permanent"))
    await queue.submit(spec("t", mode="raise"))
    await queue.submit(spec("b", mode="bug"))
    permanent = await ended(queue, "p-hls")
    assert (permanent.reason, permanent.attempts) == (FailReason.ERROR, 1)
    assert permanent.error == "no video in it"
    for name in ("t-hls", "b-hls"):
        dead = await ended(queue, name)
        assert (dead.reason, dead.attempts) == (FailReason.DEAD_LETTER, 3)
    async with client(redis_url) as redis:
        for name in ("p-hls", "t-hls", "b-hls"):
            await until(partial(has_no_outputs, redis, name), 10, "outputs are gone")
    await queue.retry("t-hls")
    assert (await ended(queue, "t-hls")).attempts == 3


async def test_a_job_that_kills_its_workers_becomes_a_dead_letter(
    queue: JobQueue, workers: Workers, redis_url: str
) -> None:
    await queue.submit(spec("c", mode="crash"))
    running = [workers.start(lease=1) for _ in range(4)]
    dead = await ended(queue, "c-hls", 40)
    assert (dead.reason, dead.attempts) == (FailReason.DEAD_LETTER, 3)
    assert sum(process.poll() is None for process in running) == 1
    async with client(redis_url) as redis:
        await until(lambda: has_no_outputs(redis, "c-hls"), 10, "outputs are gone")


async def test_what_a_killed_attempt_left_is_cleared_when_its_job_is_cancelled(
    queue: JobQueue, workers: Workers, redis_url: str
) -> None:
    first = workers.start()
    await queue.submit(spec("l", seconds="60"))
    async with client(redis_url) as redis:
        await until(lambda: is_begun(redis, "l-hls"), 15, "attempt")
        kill(first)
        await queue.requeue(await queue.ledger.get("l-hls"), error="the worker died")
        assert len(await outputs(redis, "l-hls")) == 1
        assert await queue.cancel("l-hls") is JobState.QUEUED
        workers.start()
        await until(lambda: has_no_outputs(redis, "l-hls"), 15, "the output is gone")


async def test_the_most_urgent_job_comes_first(
    queue: JobQueue, workers: Workers, redis_url: str
) -> None:
    for number, priority in enumerate((-5, 0, 7, 0)):
        await queue.submit(spec(f"u{number}", priority=priority, seconds="0.1"))
    workers.start()
    for number in range(4):
        await ended(queue, f"u{number}-hls")
    jobs = [await queue.ledger.get(f"u{number}-hls") for number in range(4)]
    order = [job.spec.subject for job in sorted(jobs, key=lambda job: job.started_at)]
    assert order == ["u2", "u1", "u3", "u0"]


async def test_kinds_share_the_slots_and_progress_is_seen(
    queue: JobQueue, workers: Workers, redis_url: str
) -> None:
    workers.start(gpu=1, cpu=1)
    specs = [
        spec(f"m{number}", kind=kind, seconds="1.5")
        for number in range(3)
        for kind in (JobKind.HLS, JobKind.ANALYSIS)
    ]
    for one in specs:
        await queue.submit(one)
    most = 0
    seen: set[str] = set()

    async def all_done() -> bool:
        nonlocal most
        jobs = [await queue.ledger.get(one.id) for one in specs]
        running = [job for job in jobs if job.is_running and job.slot]  # not just looked at
        most = max(most, len(running))
        seen.update(job.slot for job in running)
        seen.update("progress" for job in running if job.progress and job.progress.percent > 0)
        return all(job.is_complete for job in jobs)

    await until(all_done, 40, "all jobs")
    assert most == 2
    assert seen == {"gpu", "cpu", "progress"}


async def test_a_job_that_needs_no_slot_waits_for_none(
    queue: JobQueue, workers: Workers, redis_url: str
) -> None:
    workers.start(cpu=1)
    await queue.submit(spec("busy", seconds="60"))
    async with client(redis_url) as redis:
        await until(lambda: is_begun(redis, "busy-hls"), 15, "the slot is taken")
        await queue.submit(spec("more", seconds="1"))
        await queue.submit(spec("copy", seconds="0.2", copy="yes"))
        assert (await ended(queue, "copy-hls", 10)).slot == ""
        assert not await is_begun(redis, "more-hls")
        assert (await queue.ledger.get("more-hls")).is_queued


async def test_cut_connections_neither_end_a_job_nor_block_the_next(
    queue: JobQueue, workers: Workers, redis_url: str
) -> None:
    """Every connection is cut: the long job goes on, and its worker takes others meanwhile."""
    workers.start(cpu=2)
    await queue.submit(spec("o", seconds="8"))
    async with client(redis_url) as redis:
        await until(lambda: is_begun(redis, "o-hls"), 15, "attempt")
        for kind in ("normal", "pubsub"):
            await redis.client_kill_filter(_type=kind, skipme=True)
        await queue.submit(spec("o2", seconds="0.2"))
        await ended(queue, "o2-hls")
        assert not (await queue.ledger.get("o-hls")).is_final  # it did not wait for the long one
        await ended(queue, "o-hls")
        await assert_one_result(queue, redis, "o-hls")
