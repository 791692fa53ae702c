import asyncio

from cefmp4.tasks import cancel_all


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
