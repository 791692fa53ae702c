"""What every ledger of jobs must do."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest
import pytest_asyncio

from cefmp4.errors import PermanentError, RefusedError, UnknownJobError
from cefmp4.jobs import presence
from cefmp4.jobs.ledger import MAX_RESULT_BYTES, RedisLedger, Standing, Ticket, open_ledger
from cefmp4.model.job import (
    FailReason,
    Job,
    JobInput,
    JobKind,
    JobProgress,
    JobSpec,
    JobState,
    Lane,
)

pytestmark = pytest.mark.integration

LEASE_S = 0.4
HLS, LOOK, ENCODE = JobKind.HLS, Lane.HLS_LOOK, Lane.HLS_ENCODE


@pytest_asyncio.fixture
async def ledger(redis_url: str) -> AsyncIterator[RedisLedger]:
    async with open_ledger(redis_url, lease_seconds=LEASE_S) as opened:
        yield opened


def spec(name: str = "a", *, priority: int = 0, kind: JobKind = HLS) -> JobSpec:
    source = JobInput(bucket="b", key=f"streams/{name}.mp4", path="/in/\udcff.mp4", size=2**60)
    return JobSpec(
        subject=name, kind=kind, input=source, params={"ladder": "720"}, priority=priority
    )


async def begin(ledger: RedisLedger, owner: str = "one", offered: str = "") -> Job:
    job = await ledger.begin(LOOK, owner=owner, slot="cpu", offered=offered)
    assert job is not None
    return job


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + 5
    while not await condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_a_record_comes_back_as_it_was_submitted(ledger: RedisLedger) -> None:
    assert await ledger.submit(spec()) == Ticket("a-hls", LOOK, 1)
    job = await ledger.get("a-hls")
    assert job.spec == spec()
    assert job.is_queued
    assert job.submitted_at == pytest.approx(time.time(), abs=5)
    with pytest.raises(UnknownJobError):
        await ledger.get("b-hls")


async def test_a_repeated_submit_changes_nothing(ledger: RedisLedger) -> None:
    await ledger.submit(spec())
    assert await ledger.submit(replace(spec(), priority=5)) is None
    job = await begin(ledger)
    await ledger.accept(job.id, job.fence, {})
    await ledger.commit(job.id, job.fence)
    assert await ledger.submit(spec()) is None
    assert (await ledger.get("a-hls")).is_complete


async def test_the_whole_way(ledger: RedisLedger) -> None:
    await ledger.submit(spec())
    job = await begin(ledger, owner="host\udcff|1")
    assert (job.state, job.attempts, job.owner, job.slot) == (
        JobState.IN_PROGRESS,
        1,
        "host\udcff|1",
        "cpu",
    )
    assert job.fences == (job.fence,)
    progress = JobProgress(percent=50, speed=1.5, fps=30, eta_seconds=9, step="encode")
    assert await ledger.heartbeat(job.id, job.fence, progress) is Standing.OK
    assert await ledger.heartbeat(job.id, job.fence) is Standing.OK
    assert (await ledger.get(job.id)).progress == progress
    assert not await ledger.commit(job.id, job.fence)  # nothing is accepted yet
    assert await ledger.accept(job.id, job.fence, {"rows": [1]})
    assert await ledger.accept(job.id, job.fence, {"rows": [1]})  # the answer was lost
    assert await ledger.commit(job.id, job.fence)
    assert await ledger.commit(job.id, job.fence)
    after = await ledger.get(job.id)
    assert after.is_complete
    assert after.result == {"rows": [1]}
    assert after.accepted == job.fence
    assert await ledger.running() == []
    assert await ledger.begin(LOOK, owner="one", slot="", offered="a-hls") is None


async def test_only_one_of_many_begins_a_job(ledger: RedisLedger) -> None:
    await ledger.submit(spec())
    begun = await asyncio.gather(
        *(ledger.begin(LOOK, owner=str(number), slot="", offered="a-hls") for number in range(10))
    )
    assert len([job for job in begun if job is not None]) == 1


async def test_an_attempt_that_lost_its_lease_is_fenced_off(ledger: RedisLedger) -> None:
    await ledger.submit(spec())
    zombie = await begin(ledger)

    async def is_over() -> bool:
        return any(attempt.is_over for attempt in await ledger.running())

    await until(is_over)
    assert await ledger.requeue(zombie, error="gone") == Ticket(zombie.id, LOOK, 2)
    second = await begin(ledger, owner="two")
    assert second.fence > zombie.fence
    assert second.fences == (zombie.fence, second.fence)
    assert await ledger.heartbeat(zombie.id, zombie.fence) is Standing.LOST
    assert not await ledger.accept(zombie.id, zombie.fence, {"by": "zombie"})
    assert not await ledger.fail(zombie.id, zombie.fence, FailReason.ERROR, "no")
    assert await ledger.requeue(zombie, error="no") is None
    assert await ledger.accept(second.id, second.fence, {"by": "second"})
    assert not await ledger.commit(zombie.id, zombie.fence)
    assert await ledger.commit(second.id, second.fence)
    assert (await ledger.get(zombie.id)).result == {"by": "second"}


async def test_a_heartbeat_keeps_the_lease(ledger: RedisLedger) -> None:
    await ledger.submit(spec())
    job = await begin(ledger)
    ends = time.monotonic() + 2 * LEASE_S
    while time.monotonic() < ends:
        assert await ledger.heartbeat(job.id, job.fence) is Standing.OK
        await asyncio.sleep(LEASE_S / 8)
    await ledger.heartbeat(job.id, job.fence)
    assert [attempt.is_over for attempt in await ledger.running()] == [False]


async def test_an_accepted_result_outlives_its_attempt(ledger: RedisLedger) -> None:
    await ledger.submit(spec())
    first = await begin(ledger)
    assert await ledger.accept(first.id, first.fence, {"by": 1})
    await ledger.requeue(first, error="the worker died")
    second = await begin(ledger)
    assert (second.accepted, second.result) == (first.fence, {"by": 1})
    assert not await ledger.accept(second.id, second.fence, {"by": 2})
    assert await ledger.commit(second.id, second.fence)
    assert (await ledger.get(first.id)).result == {"by": 1}


async def test_attempts_end_in_the_dead_letter_box(ledger: RedisLedger) -> None:
    await ledger.submit(replace(spec(), max_attempts=2))
    job = await begin(ledger)
    assert await ledger.requeue(job, error="one") is not None
    job = await begin(ledger)
    assert await ledger.requeue(job, error="two") is None
    dead = await ledger.get(job.id)
    assert (dead.state, dead.reason, dead.error) == (
        JobState.FAILED,
        FailReason.DEAD_LETTER,
        "two",
    )
    ticket = await ledger.retry(job.id)
    assert ticket.round == dead.round + 1
    again = await ledger.get(job.id)
    assert (again.attempts, again.reason, again.is_queued) == (0, None, True)


async def test_a_released_attempt_does_not_count(ledger: RedisLedger) -> None:
    await ledger.submit(replace(spec(), max_attempts=1))
    for _ in range(3):
        job = await begin(ledger)
        assert await ledger.requeue(job, error="stop", gives_back=True) is not None
    assert (await ledger.get(job.id)).attempts == 0


async def test_an_attempt_that_wrote_nothing_leaves_no_trace(ledger: RedisLedger) -> None:
    await ledger.submit(replace(spec(), max_attempts=2))
    first = await begin(ledger)
    await ledger.requeue(first, error="it failed")
    for _ in range(3):
        job = await begin(ledger)
        assert await ledger.requeue(job, error="no room", wrote_nothing=True) is not None
    left = await ledger.get(job.id)
    assert (left.attempts, left.fences, left.error) == (1, (first.fence,), "no room")
    await ledger.submit(spec("b"))
    await ledger.cancel(job.id)
    only = await begin(ledger)
    await ledger.requeue(only, error="no room", wrote_nothing=True)
    assert (await ledger.get(only.id)).fences == ()


async def test_a_job_moves_to_the_lane_of_what_it_needs(ledger: RedisLedger) -> None:
    await ledger.submit(spec())
    job = await begin(ledger)
    assert job.next_lane is ENCODE
    moved = await ledger.requeue(job, error="", gives_back=True, lane=ENCODE)
    assert moved == Ticket(job.id, ENCODE, 2)
    assert await ledger.begin(LOOK, owner="", slot="", offered=job.id) is None
    again = await ledger.begin(ENCODE, owner="", slot="gpu", offered=job.id)
    assert again is not None
    assert (again.lane, again.attempts, again.next_lane) == (ENCODE, 1, None)


async def test_back_off_delays_the_next_attempt(ledger: RedisLedger) -> None:
    await ledger.submit(spec())
    job = await begin(ledger)
    await ledger.requeue(job, error="busy", delay_s=0.3)
    assert await ledger.begin(LOOK, owner="", slot="", offered=job.id) is None
    stats = await ledger.stats(LOOK)
    assert (stats.queued, stats.waiting) == (0, 1)

    async def begins() -> bool:
        return await ledger.begin(LOOK, owner="", slot="", offered=job.id) is not None

    await until(begins)


async def test_a_queued_job_is_cancelled_at_once_and_a_running_one_is_told(
    ledger: RedisLedger,
) -> None:
    await ledger.submit(spec("a"))
    await ledger.submit(spec("b"))
    job = await begin(ledger)
    assert await ledger.cancel("b-hls") is JobState.QUEUED
    assert (await ledger.get("b-hls")).reason is FailReason.CANCELLED
    assert await ledger.cancel(job.id) is JobState.IN_PROGRESS
    assert await ledger.heartbeat(job.id, job.fence) is Standing.CANCEL
    assert await ledger.requeue(job, error="the worker died") is None
    assert (await ledger.get(job.id)).reason is FailReason.CANCELLED
    with pytest.raises(RefusedError):
        await ledger.cancel(job.id)
    with pytest.raises(UnknownJobError):
        await ledger.cancel("nobody")
    assert await ledger.begin(LOOK, owner="", slot="", offered="b-hls") is None


async def test_a_cancel_after_the_result_comes_too_late(ledger: RedisLedger) -> None:
    await ledger.submit(spec())
    job = await begin(ledger)
    await ledger.cancel(job.id)
    assert await ledger.accept(job.id, job.fence, {})
    assert await ledger.heartbeat(job.id, job.fence) is Standing.OK
    with pytest.raises(RefusedError):
        await ledger.cancel(job.id)
    assert await ledger.commit(job.id, job.fence)


@pytest.mark.parametrize("state", ["queued", "in_progress", "complete"])
async def test_only_a_failed_job_can_be_retried(ledger: RedisLedger, state: str) -> None:
    await ledger.submit(spec())
    if state != "queued":
        job = await begin(ledger)
        if state == "complete":
            await ledger.accept(job.id, job.fence, {})
            await ledger.commit(job.id, job.fence)
    with pytest.raises(RefusedError):
        await ledger.retry("a-hls")
    assert (await ledger.get("a-hls")).state == state


async def test_priority_comes_first_then_age(ledger: RedisLedger) -> None:
    for name, priority in (("a", 0), ("b", 3), ("c", -3), ("d", 3), ("e", 0)):
        await ledger.submit(spec(name, priority=priority))
    await ledger.submit(spec("x", kind=JobKind.ANALYSIS, priority=99))
    order = [(await begin(ledger, offered="a-hls")).spec.subject for _ in range(5)]
    assert order == ["b", "d", "a", "e", "c"]
    with pytest.raises(PermanentError):
        await ledger.submit(spec("f", priority=1000))


async def test_a_ticket_spent_on_another_job_is_replaced(ledger: RedisLedger) -> None:
    await ledger.submit(spec("a"))
    await ledger.submit(spec("b", priority=1))
    assert (await begin(ledger, offered="a-hls")).id == "b-hls"
    assert await ledger.ready(LOOK, count=9, for_seconds=0) == [Ticket("a-hls", LOOK, 2)]
    assert await ledger.ready(LOOK, count=9, for_seconds=60) == []


async def test_stats_tell_depth_and_age(ledger: RedisLedger) -> None:
    assert (await ledger.stats(LOOK)).queued == 0
    for name in "abc":
        await ledger.submit(spec(name))
    await asyncio.sleep(0.1)
    stats = await ledger.stats(LOOK)
    assert stats.queued == 3
    assert 0.1 <= stats.oldest_seconds < 5


async def test_the_latest_changes_come_first(ledger: RedisLedger) -> None:
    for name in "abc":
        await ledger.submit(spec(name))
    job = await begin(ledger)
    await ledger.fail(job.id, job.fence, FailReason.ERROR, "no")
    shown = await ledger.latest([JobState.QUEUED, JobState.FAILED], 10)
    assert [one.spec.subject for one in shown] == ["c", "b", "a"]
    assert [one.spec.subject for one in await ledger.latest(list(JobState), 1)] == ["c"]


async def test_a_result_that_is_too_long_is_refused(ledger: RedisLedger) -> None:
    await ledger.submit(spec())
    job = await begin(ledger)
    with pytest.raises(PermanentError):
        await ledger.accept(job.id, job.fence, {"rows": "x" * MAX_RESULT_BYTES})


async def test_a_record_that_is_gone_fences_its_attempt(
    ledger: RedisLedger, redis_url: str
) -> None:
    await ledger.submit(spec())
    job = await begin(ledger)
    from redis.asyncio import Redis

    async with Redis.from_url(redis_url) as redis:
        await redis.flushall()
    assert await ledger.heartbeat(job.id, job.fence) is Standing.LOST
    await ledger.submit(spec())
    assert (await begin(ledger)).fence > job.fence


async def queued(ledger: RedisLedger, *names: str) -> None:
    for name in names:
        await ledger.submit(spec(name))
        await asyncio.sleep(0.01)  # the order of names must not decide


# Whether the attempt is given back, and whether it wrote nothing.
HANDED_BACK = {
    "its worker died": (False, False),
    "it was stopped, or a server was away": (True, False),
    "its host had no room": (False, True),
}


@pytest.mark.parametrize("why", HANDED_BACK)
@pytest.mark.parametrize("delay_s", [0.0, 0.5])
async def test_a_job_that_is_tried_again_keeps_its_place(
    ledger: RedisLedger, why: str, delay_s: float
) -> None:
    """A back-off says when it is ready; where it stands then is what it was at its submission."""
    await queued(ledger, "z-first")
    job = await begin(ledger)
    await queued(ledger, "a-later", "b-later")
    gives_back, wrote_nothing = HANDED_BACK[why]
    await ledger.requeue(
        job, error=why, delay_s=delay_s, gives_back=gives_back, wrote_nothing=wrote_nothing
    )
    if delay_s:
        assert (await begin(ledger)).id == "a-later-hls"  # a back-off holds nobody else up

        async def is_due() -> bool:
            return (await ledger.stats(LOOK)).waiting == 0

        await until(is_due)
    assert (await begin(ledger)).id == "z-first-hls"


async def test_in_the_next_lane_a_job_stands_where_it_was_submitted(ledger: RedisLedger) -> None:
    await queued(ledger, "z-first", "a-later")
    first = await begin(ledger)
    later = await begin(ledger)
    for job in (later, first):
        await ledger.requeue(job, error="", gives_back=True, lane=ENCODE)
    begun = await ledger.begin(ENCODE, owner="one", slot="cpu", offered=later.id)
    assert begun is not None
    assert begun.id == first.id


async def test_a_failed_job_that_is_retried_keeps_its_place(ledger: RedisLedger) -> None:
    await queued(ledger, "z-first")
    job = await begin(ledger)
    await ledger.fail(job.id, job.fence, FailReason.ERROR, "no")
    await queued(ledger, "a-later")
    await ledger.retry(job.id)
    assert (await begin(ledger)).id == "z-first-hls"


async def test_priority_goes_before_the_place(ledger: RedisLedger) -> None:
    await queued(ledger, "z-first")
    job = await begin(ledger)
    await ledger.submit(spec("urgent", priority=1))
    await ledger.requeue(job, error="the worker died")
    assert (await begin(ledger)).id == "urgent-hls"
    assert (await begin(ledger)).id == "z-first-hls"


async def test_workers_that_live_are_counted_by_what_they_do(ledger: RedisLedger) -> None:
    assert await ledger.workers(HLS) == 0
    for owner in ("one", "two", "two"):
        await ledger.announce(owner, [HLS])
    assert (await ledger.workers(HLS), await ledger.workers(JobKind.ANALYSIS)) == (2, 0)
    await ledger.leave("one", [HLS])
    assert await ledger.workers(HLS) == 1


async def test_a_worker_that_falls_silent_counts_no_more(
    ledger: RedisLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "PRESENCE_MS", 50)
    await ledger.announce("one", [HLS])

    async def is_gone() -> bool:
        return await ledger.workers(HLS) == 0

    await until(is_gone)


async def test_the_states_of_those_that_are_known(ledger: RedisLedger) -> None:
    await queued(ledger, "a", "b")
    job = await begin(ledger)
    assert await ledger.states(["b-hls", "nobody", job.id]) == {
        "b-hls": JobState.QUEUED,
        job.id: JobState.IN_PROGRESS,
    }
    assert await ledger.states([]) == {}
