"""How a running service learns that it is to end, and ends in time."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from cefmp4 import signals
from cefmp4.tasks import CANCEL_AGAIN_S

log = structlog.get_logger()

MIN_STOP_S = 2.0
LAST_WORDS_S = 1.0
AFTER_DRAIN_S = 3.0


def drain_s(within_s: float) -> float:
    """What parts on the wire get of a stop that may take so long: all but what it takes to write
    down how far they came."""
    return within_s - min(AFTER_DRAIN_S, within_s / 4)


@asynccontextmanager
async def until_signal(within_s: float | None = None) -> AsyncIterator[asyncio.Event]:
    """SIGTERM or SIGINT set the event; a second one ends the process at once. After `within_s`
    seconds it ends in any case: a thread that a disk holds up cannot be told to. That is as safe as
    a kill, and no server that we started outlives us."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def answer() -> None:
        if within_s is not None:
            end = threading.Timer(max(within_s, MIN_STOP_S), _end_now)
            end.daemon = True
            end.start()
        loop.call_soon_threadsafe(stop.set)

    signals.hear(answer)
    yield stop


def _end_now() -> None:
    """The line is said by somebody else: whoever reads the log may have stopped reading."""
    reason = "the stop takes too long: ending as a kill would, the next start goes on from there"
    teller = threading.Thread(target=log.warning, args=(reason,), daemon=True)
    teller.start()
    teller.join(LAST_WORDS_S)
    os._exit(0)


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
