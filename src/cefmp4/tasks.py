"""Begins tasks that inherit nothing, ends tasks for sure, waits for what may not come, and cuts
short what a stop meets."""

import asyncio
import contextvars
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from cefmp4.errors import first_error

T = TypeVar("T")

# Longer than anything does in answer to a cancel.
CANCEL_AGAIN_S = 5.0
AFTER_DRAIN_S = 3.0


def apart(work: Coroutine[Any, Any, T], *, name: str) -> "asyncio.Task[T]":
    """A task for one stream, or for what outlives the stream that asked for it. A task inherits
    what the one that begins it has bound for its log lines, the ids above all; this one does not,
    and what it binds is its own."""
    return asyncio.create_task(work, name=name, context=contextvars.Context())


async def cancel_all(tasks: Iterable["asyncio.Task[Any]"]) -> None:
    """Returns when all have ended, however. A library may swallow a cancel that meets the very
    answer it waits for, as asyncio.wait_for does before Python 3.12; then it comes again."""
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        ended, left = await asyncio.wait(left, timeout=CANCEL_AGAIN_S)
        for task in ended:
            if not task.cancelled():
                task.exception()  # whoever would have heard of it wants it no more


async def each(
    items: Iterable[T], work: Callable[[T], Awaitable[None]], *, at_once: int, name: str
) -> None:
    """So many side by side; the first error ends the others."""
    left = iter(items)

    async def take() -> None:
        for item in left:
            await work(item)

    with first_error():
        async with asyncio.TaskGroup() as group:
            for number in range(at_once):
                group.create_task(take(), name=f"{name} {number}")


async def together(*works: Coroutine[Any, Any, T]) -> list[T]:
    """What each of them gives. None of them outlives the first error, as it would with gather."""
    with first_error():
        async with asyncio.TaskGroup() as group:
            begun = [group.create_task(work) for work in works]
    return [task.result() for task in begun]


async def comes(event: asyncio.Event, *, within_s: float) -> bool:
    """Whether the event is set before so much time has passed."""
    try:
        async with asyncio.timeout(within_s):
            await event.wait()
    except TimeoutError:
        return False
    return True


async def finish(work: Coroutine[Any, Any, T], *, name: str, patience_s: float | None = None) -> T:
    """Awaits it to its end even when we are cancelled meanwhile, then lets the cancel go. After
    `patience_s` from the cancel the work is cancelled, too."""
    task = asyncio.create_task(work, name=name)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        ending = asyncio.create_task(_end(task, patience_s), name=f"end of {name}")
        while not ending.done():
            with suppress(asyncio.CancelledError):  # another cancel tells nothing new
                await asyncio.shield(ending)
        raise


async def _end(task: "asyncio.Task[Any]", patience_s: float | None) -> None:
    await asyncio.wait({task}, timeout=patience_s)
    await cancel_all({task})


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


def drain_s(within_s: float) -> float:
    """What parts on the wire get of a stop that may take so long: all but what it takes to write
    down how far they came."""
    return within_s - min(AFTER_DRAIN_S, within_s / 4)
