"""Keeps our leases alive, and notices a Redis that has lost its memory."""

import asyncio
from collections.abc import Callable, Iterable

import structlog

from cefmp4.errors import LeaseLostError, TransientError
from cefmp4.ingest.record import StreamRecord
from cefmp4.ports.checkpoints import CheckpointStore
from cefmp4.reachability import level_of

log = structlog.get_logger()


class Ownership:
    """`records` are the streams we work on now; `on_memory_lost` is called whenever Redis is found
    emptied, unless `is_restoring` says that what it forgot is being found again."""

    def __init__(
        self,
        *,
        checkpoints: CheckpointStore,
        records: Callable[[], Iterable[StreamRecord]],
        on_lost: Callable[[StreamRecord], None],
        on_memory_lost: Callable[[], None],
        is_restoring: Callable[[], bool],
        lease_seconds: float,
        folder: str = "",
    ) -> None:
        self._checkpoints = checkpoints
        self._records = records
        self._on_lost = on_lost
        self._on_memory_lost = on_memory_lost
        self._is_restoring = is_restoring
        self._interval_s = lease_seconds / 3
        self._folder = folder

    async def run(self) -> None:
        while True:
            try:
                await self.step()
            except TransientError as error:
                log.log(level_of(error), "leases could not be renewed", reason=str(error))
            await asyncio.sleep(self._interval_s)

    async def step(self) -> None:
        held = {one.stream.id: one for one in self._records() if not one.is_released}
        lost = await self._checkpoints.renew([record.lease for record in held.values()])
        for stream_id in lost:
            await self._win_back(held[stream_id])
        await self._watch_memory()

    async def _win_back(self, record: StreamRecord) -> None:
        """A lease that ran out while we were stopped, or was wiped, may still be free."""
        if record.is_released:
            return
        try:
            await record.restore()
        except LeaseLostError:
            if record.is_released:
                return
            self._on_lost(record)

    async def _watch_memory(self) -> None:
        """It may be emptied again before we have seen that it remembers."""
        if self._is_restoring() or not await self._checkpoints.is_fresh(self._folder):
            return
        if not self._is_restoring():
            log.warning("Redis was emptied: writing everything again from what we know")
            self._on_memory_lost()
