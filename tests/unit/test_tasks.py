import asyncio

import structlog

from cefmp4.tasks import apart, cancel_all


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
