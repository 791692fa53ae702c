"""Who may send a part now: a bounded number of parts on the wire, shared fairly by the streams."""

import asyncio
from contextlib import suppress

from cefmp4 import metrics
from cefmp4.ingest.fairness import FairGate, Turn

MANY = 4
QUIET_S = 0.2  # longer than the gap between two files of a backlog


class PartSlots(FairGate):
    """Folders take turns, and in each the streams: each waiting stream gets one part, then the next
    stream. What grows goes first; where there are many slots, the backlog leaves it one. At most
    `max_streams` streams have parts on the wire, so that a slow link finishes recordings instead of
    dragging all of them along. A slot is taken before any byte is read."""

    def __init__(self, *, max_parts: int, max_streams: int) -> None:
        super().__init__(max_parts)
        self._max_streams = max_streams
        self._in_flight: dict[str, int] = {}
        self._growing_in_flight = 0
        self._is_closed = False
        self._begun = 0  # parts so far
        self._empty = asyncio.Event()
        self._empty.set()
        self._empty_since = self._busy_since = float("-inf")
        metrics.part_slots.set(max_parts)

    def __repr__(self) -> str:
        return f"<PartSlots in_flight={self._in_flight} waiting={len(self._waiting)}>"

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
                    await asyncio.sleep(QUIET_S)

    def _has_room(self, turn: Turn) -> bool:
        is_sparing = not (turn.is_growing or self._growing_in_flight)
        parts = self._limit - (is_sparing and self._limit >= MANY)
        streams = self._max_streams - (is_sparing and self._max_streams >= MANY)
        if self._is_closed or self._inside >= parts:
            return False
        return turn.stream_id in self._in_flight or len(self._in_flight) < streams

    def _count(self, turn: Turn, change: int) -> None:
        super()._count(turn, change)
        stream_id = turn.stream_id
        self._growing_in_flight += change * turn.is_growing
        count = self._in_flight.get(stream_id, 0) + change
        if count:
            self._in_flight[stream_id] = count
        else:
            self._in_flight.pop(stream_id, None)
        metrics.slots_in_use.set(self._inside)
        self._begun += change > 0
        now = asyncio.get_running_loop().time()
        if not self._in_flight:
            self._empty.set()
            self._empty_since = now
        elif self._empty.is_set():
            self._empty.clear()
            if now - self._empty_since >= QUIET_S:
                self._busy_since = now
