import asyncio

from cefmp4.watch.rescans import RescanCause, RescanRequests


async def test_many_wishes_are_one_look_with_the_first_cause() -> None:
    rescans = RescanRequests()
    assert rescans.take() is None
    rescans.request(RescanCause.OVERFLOW)
    rescans.request(RescanCause.FOLDER_MOVED)
    assert rescans.is_set()
    assert rescans.take() is RescanCause.OVERFLOW
    assert rescans.take() is None
    assert not rescans.is_set()


async def test_waiting_ends_with_a_wish_or_with_time() -> None:
    rescans = RescanRequests()
    await rescans.wait(0.0)
    waiting = asyncio.create_task(rescans.wait(60))
    await asyncio.sleep(0)
    rescans.request(RescanCause.OVERFLOW)
    async with asyncio.timeout(5):
        await waiting
