"""Who may send a part now: a bounded number of parts on the wire, shared fairly by the streams."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from cefmp4 import metrics
from cefmp4.ingest.fairness import HurriedQueue

MANY = 4
QUIET_S = 0.2  # longer than the gap between two files of a backlog


@dataclass(slots=True, eq=False)
class _Turn:
    """What one part waits for."""

    stream_id: str
    relpath: str
    is_growing: bool
    comes: "asyncio.Future[None]" = field(init=False)

    def __post_init__(self) -> None:
        self.comes = asyncio.get_running_loop().create_future()


class PartSlots:
    """Folders take turns, and in each the streams: each waiting stream gets one part, then the next
    stream. What grows goes first; where there are many slots, the backlog leaves it one. At most
    `max_streams` streams have parts on the wire, so that a slow link finishes recordings instead of
    dragging all of them along. A slot is taken before any byte is read."""

    def __init__(self, *, max_parts: int, max_streams: int, quiet_s: float = QUIET_S) -> None:
        self._max_parts = max_parts
        self._max_streams = max_streams
        self._quiet_s = quiet_s
        self._in_flight: dict[str, int] = {}
        self._growing_in_flight = 0
        self._waiting: HurriedQueue[str] = HurriedQueue()
        self._turns: dict[str, deque[_Turn]] = {}  # of each that waits
        self._is_closed = False
        self._begun = 0  # parts so far
        self._empty = asyncio.Event()
        self._empty.set()
        self._empty_since = self._busy_since = float("-inf")
        metrics.part_slots.set(max_parts)

    def __repr__(self) -> str:
        return f"<PartSlots in_flight={self._in_flight} waiting={len(self._waiting)}>"

    @asynccontextmanager
    async def take(
        self, stream_id: str, relpath: str = "", *, is_growing: bool = False
    ) -> AsyncIterator[None]:
        turn = _Turn(stream_id, relpath, is_growing)
        await self._enter(turn)
        try:
            yield
        finally:
            self._leave(turn)

    async def drain(self, timeout_s: float) -> None:
        """Nobody gets a slot any more; waits for those who have one."""
        self._is_closed = True
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._empty.wait()

    async def quiet(self, patience_s: float) -> None:
        """Returns once no part was on the wire for a moment, or when there was none such moment for
        so long; who asks later waits no longer for that."""
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self._busy_since + patience_s):
                begun = -1
                while begun != self._begun:
                    begun = self._begun
                    await self._empty.wait()
                    await asyncio.sleep(self._quiet_s)

    async def _enter(self, turn: _Turn) -> None:
        if not self._waiting and self._has_room(turn):
            self._count(turn, +1)
            return
        self._line_up(turn)
        self._wake()  # it may go before those that wait
        try:
            await turn.comes
        except asyncio.CancelledError:
            if turn.comes.done() and not turn.comes.cancelled():
                self._leave(turn)  # it was our turn already: pass it on
            else:
                self._forget(turn)
            raise

    def _leave(self, turn: _Turn) -> None:
        self._count(turn, -1)
        self._wake()

    def _line_up(self, turn: _Turn) -> None:
        self._turns.setdefault(turn.stream_id, deque()).append(turn)
        self._waiting.put(turn.stream_id, turn.relpath, is_hurried=turn.is_growing)

    def _wake(self) -> None:
        while (queue := self._next_in_line()) is not None:
            turn = queue.popleft()
            self._waiting.take(turn.stream_id)
            self._line_up_again(turn.stream_id)
            if not turn.comes.done():
                self._count(turn, +1)
                turn.comes.set_result(None)

    def _next_in_line(self) -> "deque[_Turn] | None":
        """Nobody overtakes: a slot left empty now is what makes room for the next. But for what
        grows, when the backlog may not go."""
        if not self._waiting:
            return None
        heads = [self._waiting.first()]
        if self._waiting.hurried:
            heads.append(self._waiting.hurried.first())
        for queue in map(self._turns.__getitem__, heads):
            if self._has_room(queue[0]):
                return queue
        return None

    def _line_up_again(self, stream_id: str) -> None:
        """At the end of the line, for the next part of this stream, if there is one."""
        if queue := self._turns[stream_id]:
            self._waiting.put(stream_id, queue[0].relpath, is_hurried=queue[0].is_growing)
        else:
            del self._turns[stream_id]

    def _has_room(self, turn: _Turn) -> bool:
        is_sparing = not (turn.is_growing or self._growing_in_flight)
        parts = self._max_parts - (is_sparing and self._max_parts >= MANY)
        streams = self._max_streams - (is_sparing and self._max_streams >= MANY)
        if self._is_closed or sum(self._in_flight.values()) >= parts:
            return False
        return turn.stream_id in self._in_flight or len(self._in_flight) < streams

    def _forget(self, turn: _Turn) -> None:
        queue = self._turns.get(turn.stream_id)
        if queue and turn in queue:
            queue.remove(turn)
            if not queue:
                del self._turns[turn.stream_id]
                self._waiting.discard(turn.stream_id)

    def _count(self, turn: _Turn, change: int) -> None:
        stream_id = turn.stream_id
        self._growing_in_flight += change * turn.is_growing
        count = self._in_flight.get(stream_id, 0) + change
        if count:
            self._in_flight[stream_id] = count
        else:
            self._in_flight.pop(stream_id, None)
        metrics.slots_in_use.set(sum(self._in_flight.values()))
        self._begun += change > 0
        now = asyncio.get_running_loop().time()
        if not self._in_flight:
            self._empty.set()
            self._empty_since = now
        elif self._empty.is_set():
            self._empty.clear()
            if now - self._empty_since >= self._quiet_s:
                self._busy_since = now
