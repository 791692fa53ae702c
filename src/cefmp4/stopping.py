"""How a running service learns that it is to end, and ends in time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cefmp4.tasks import CANCEL_AGAIN_S

AFTER_DRAIN_S = 3.0


def drain_s(within_s: float) -> float:
    """What parts on the wire get of a stop that may take so long: all but what it takes to write
    down how far they came."""
    return within_s - min(AFTER_DRAIN_S, within_s / 4)


@asynccontextmanager
async def cut_by(stop: asyncio.Event) -> AsyncIterator[None]:
    """Around what may wait for long: the block ends where it is when `stop` is set, as by a cancel,
    and what comes after it goes on."""
    task = asyncio.current_task()
    assert task is not None
    before, cuts = task.cancelling(), 0

    async def cut() -> None:
        nonlocal cuts
        await stop.wait()
        while True:  # a library may swallow it, see cancel_all
            cuts += 1
            task.cancel()
            await asyncio.sleep(CANCEL_AGAIN_S)

    cutting = asyncio.create_task(cut(), name="stop")
    try:
        yield
    except asyncio.CancelledError:
        if cuts == 0 or task.cancelling() > before + cuts:  # somebody else wants us to end
            raise
    finally:
        cutting.cancel()
        for _ in range(cuts):
            task.uncancel()
