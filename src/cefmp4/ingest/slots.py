"""Who may send a part now: a bounded number of parts on the wire, shared fairly by the streams."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from cefmp4 import metrics

QUIET_S = 0.2  # longer than the gap between two files of a backlog


class PartSlots:
    """Streams take turns: each waiting stream gets one part, then the next stream. At most
    `max_streams` streams have parts on the wire, so that a slow link finishes recordings instead
    of dragging all of them along. A slot is taken before any byte is read."""

    def __init__(self, *, max_parts: int, max_streams: int, quiet_s: float = QUIET_S) -> None:
        self._max_parts = max_parts
        self._max_streams = max_streams
        self._quiet_s = quiet_s
        self._in_flight: dict[str, int] = {}
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}  # in the order of their turns
        self._is_closed = False
        self._begun = 0  # parts so far
        self._empty = asyncio.Event()
        self._empty.set()
        metrics.part_slots.set(max_parts)

    def __repr__(self) -> str:
        return f"<PartSlots in_flight={self._in_flight} waiting={len(self._waiting)}>"

    @asynccontextmanager
    async def take(self, stream_id: str) -> AsyncIterator[None]:
        await self._enter(stream_id)
        try:
            yield
        finally:
            self._leave(stream_id)

    async def drain(self, timeout_s: float) -> None:
        """Nobody gets a slot any more; waits for those who have one."""
        self._is_closed = True
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._empty.wait()

    async def quiet(self, patience_s: float) -> None:
        """Returns once no part was on the wire for a moment, or when patience is at its end."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                begun = -1
                while begun != self._begun:
                    begun = self._begun
                    await self._empty.wait()
                    await asyncio.sleep(self._quiet_s)

    async def _enter(self, stream_id: str) -> None:
        if not self._waiting and self._has_room(stream_id):
            self._count(stream_id, +1)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(stream_id, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave(stream_id)  # it was our turn already: pass it on
            else:
                self._forget(stream_id, turn)
            raise

    def _leave(self, stream_id: str) -> None:
        self._count(stream_id, -1)
        self._wake()

    def _wake(self) -> None:
        for stream_id in list(self._waiting):
            if not self._has_room(stream_id):
                return  # nobody overtakes: a slot left empty now is what makes room for the next
            queue = self._waiting.pop(stream_id)
            turn = queue.popleft()
            if queue:
                self._waiting[stream_id] = queue  # back to the end of the line
            if not turn.done():
                self._count(stream_id, +1)
                turn.set_result(None)

    def _has_room(self, stream_id: str) -> bool:
        if self._is_closed or sum(self._in_flight.values()) >= self._max_parts:
            return False
        return stream_id in self._in_flight or len(self._in_flight) < self._max_streams

    def _forget(self, stream_id: str, turn: "asyncio.Future[None]") -> None:
        queue = self._waiting.get(stream_id)
        if queue and turn in queue:
            queue.remove(turn)
        if queue is not None and not queue:
            del self._waiting[stream_id]

    def _count(self, stream_id: str, change: int) -> None:
        count = self._in_flight.get(stream_id, 0) + change
        if count:
            self._in_flight[stream_id] = count
        else:
            self._in_flight.pop(stream_id, None)
        metrics.slots_in_use.set(sum(self._in_flight.values()))
        self._begun += change > 0
        if self._in_flight:
            self._empty.clear()
        else:
            self._empty.set()
