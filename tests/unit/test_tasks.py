import asyncio

import pytest
import structlog

from cefmp4 import tasks
from cefmp4.tasks import apart, cancel_all, comes, cut_by, drain_s, finish, together


async def test_one_that_swallows_a_cancel_is_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "CANCEL_AGAIN_S", 0.01)
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

    begun = [asyncio.create_task(work()) for work in (hard_of_hearing, sound)]
    await asyncio.sleep(0)
    async with asyncio.timeout(30):
        await cancel_all(begun)
    assert heard == 2
    assert all(task.done() for task in begun)


async def test_nothing_to_end() -> None:
    await cancel_all([])


async def test_what_is_begun_apart_has_no_ids_of_others() -> None:
    async def bound() -> dict[str, object]:
        return structlog.contextvars.get_contextvars()

    with structlog.contextvars.bound_contextvars(stream_id="a"):
        assert await asyncio.create_task(bound()) == {"stream_id": "a"}
        assert await apart(bound(), name="apart") == {}


async def test_none_of_several_outlives_the_first_error() -> None:
    left: list[str] = []

    async def long() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            left.append("long")

    async def wrong() -> None:
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        await together(long(), wrong())
    assert left == ["long"]


async def test_several_in_their_order() -> None:
    async def give(number: int) -> int:
        await asyncio.sleep(0.01 / (number + 1))
        return number

    assert await together(*(give(number) for number in range(3))) == [0, 1, 2]


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


async def test_what_waits_is_left_and_what_comes_after_goes_on() -> None:
    stop, left = asyncio.Event(), False
    asyncio.get_running_loop().call_later(0.01, stop.set)
    async with asyncio.timeout(10):
        async with cut_by(stop):
            try:
                await asyncio.Event().wait()
            finally:
                left = True
        await asyncio.sleep(0)  # not cancelled itself
    assert left


async def test_nothing_is_begun_after_the_stop() -> None:
    stop, begun = asyncio.Event(), False
    stop.set()
    async with cut_by(stop):
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        begun = True
    assert not begun


async def test_without_a_stop_the_block_is_as_any_other() -> None:
    with pytest.raises(KeyError):
        async with cut_by(asyncio.Event()):
            raise KeyError
    async with cut_by(asyncio.Event()):
        await asyncio.sleep(0)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_cancel_from_elsewhere_is_no_stop() -> None:
    stop = asyncio.Event()

    async def block() -> None:
        async with cut_by(stop):
            await asyncio.Event().wait()

    for is_stopped_too in (False, True):
        task = asyncio.create_task(block())
        await asyncio.sleep(0)
        if is_stopped_too:
            stop.set()
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_groups_and_time_limits_inside_end_with_it() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(0.01, stop.set)
    async with cut_by(stop), asyncio.timeout(10), asyncio.TaskGroup() as group:
        child = group.create_task(asyncio.sleep(60))
    assert child.cancelled()


@pytest.mark.parametrize(("within", "drain"), [(20, 17), (4, 3), (0, 0)])
def test_parts_on_the_wire_get_nearly_all_of_it(within: float, drain: float) -> None:
    assert drain_s(within) == drain
