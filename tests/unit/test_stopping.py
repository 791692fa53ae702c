"""A block that a stop cuts short; the signals themselves are in security/test_stopping.py."""

import asyncio

import pytest

from cefmp4.stopping import cut_by, drain_s


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
