"""How much is on its way at once, how long a store may be away, and threads that use descriptors:
those are never closed while a thread is at them, or it would meet another file of that number."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar

from cefmp4.errors import TransientError, first_error
from cefmp4.retry import for_a_while
from cefmp4.tasks import finish

T = TypeVar("T")

AT_ONCE = 8  # ranges or parts on the wire, all files together; and files side by side
PATIENCE_S = 60.0  # a store that is away for less costs no file


async def with_patience(request: Callable[[], Awaitable[T]]) -> T:
    return await for_a_while(request, seconds=PATIENCE_S, on=(TransientError,))


async def each_as_it_comes(
    items: AsyncIterator[T], work: Callable[[T], Awaitable[None]], *, at_once: int, name: str
) -> None:
    """So many side by side, and no more asked for than are worked on; the first error ends all."""
    turn = asyncio.Lock()

    async def take() -> None:
        while True:
            async with turn:
                item = await anext(items, None)
            if item is None:
                return
            await work(item)

    with first_error():
        async with asyncio.TaskGroup() as group:
            for number in range(at_once):
                group.create_task(take(), name=f"{name} {number}")


async def in_thread(work: Callable[[Callable[[], bool]], T]) -> T:
    """To its end, also when we are cancelled meanwhile; it is told then that it may stop."""
    stop = threading.Event()
    task = asyncio.create_task(asyncio.to_thread(work, stop.is_set), name="file")
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        stop.set()
        await finish(_ended(task), name="end of file")
        raise


async def _ended(task: "asyncio.Task[T]") -> None:
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()  # nobody waits for it any more


class _Closable(Protocol):
    def close(self) -> None: ...


C = TypeVar("C", bound=_Closable)


@asynccontextmanager
async def opened(open_it: Callable[[], C]) -> AsyncIterator[C]:
    """What a thread opens is closed at the end, also where we were cancelled while it did so."""
    found: list[C] = []
    try:
        await in_thread(lambda _is_stopped: found.append(open_it()))
        yield found[0]
    finally:
        for one in found:
            one.close()
