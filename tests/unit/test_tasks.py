import asyncio

import pytest
import structlog

from cefmp4.tasks import apart, cancel_all, comes, finish


async def test_one_that_swallows_a_cancel_is_told_again() -> None:
    heard = 0

    async def hard_of_hearing() -> None:
        nonlocal heard
        while heard < 2:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                heard += 1

    async def sound() -> None:
        await asyncio.sleep(60)

    tasks = [asyncio.create_task(work()) for work in (hard_of_hearing, sound)]
    await asyncio.sleep(0)
    async with asyncio.timeout(30):
        await cancel_all(tasks, again_s=0.01)
    assert heard == 2
    assert all(task.done() for task in tasks)


async def test_nothing_to_end() -> None:
    await cancel_all([])


async def test_what_is_begun_apart_has_no_ids_of_others() -> None:
    async def bound() -> dict[str, object]:
        return structlog.contextvars.get_contextvars()

    with structlog.contextvars.bound_contextvars(stream_id="a"):
        assert await asyncio.create_task(bound()) == {"stream_id": "a"}
        assert await apart(bound(), name="apart") == {}


async def test_whether_an_event_comes_in_time() -> None:
    event = asyncio.Event()
    assert not await comes(event, within_s=0.01)
    event.set()
    assert await comes(event, within_s=60)


async def test_what_must_be_finished_is_not_torn_by_cancels() -> None:
    may_end, done = asyncio.Event(), []

    async def write() -> None:
        await may_end.wait()
        done.append("written")

    writing = asyncio.create_task(finish(write(), name="write"))
    for _ in range(3):
        await asyncio.sleep(0)
        writing.cancel()
    assert not writing.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert done == ["written"]


async def test_patience_with_it_may_end() -> None:
    ended = asyncio.Event()

    async def write() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    writing = asyncio.create_task(finish(write(), name="write", patience_s=0.01))
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert ended.is_set()


async def test_how_it_ends_is_told_to_who_waits() -> None:
    async def fail() -> None:
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        await finish(fail(), name="write")


async def test_a_failure_that_nobody_can_hear_any_more_is_no_noise() -> None:
    may_end = asyncio.Event()

    async def fail() -> None:
        await may_end.wait()
        raise OSError("full")

    writing = asyncio.create_task(finish(fail(), name="write"))
    await asyncio.sleep(0)
    writing.cancel()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await writing
