"""Keeps our leases alive, and notices a Redis that has lost its memory."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import structlog

from cefmp4.errors import LeaseLostError, TransientError
from cefmp4.ingest.record import StreamRecord
from cefmp4.ports.checkpoints import CheckpointStore
from cefmp4.reachability import level_of

log = structlog.get_logger()


@dataclass(slots=True, kw_only=True)
class Ownership:
    """`records` are the streams we work on now; `on_memory_lost` is called whenever Redis is found
    emptied, unless `is_restoring` says that what it forgot is being found again."""

    checkpoints: CheckpointStore
    records: Callable[[], Iterable[StreamRecord]]
    on_lost: Callable[[StreamRecord], None]
    on_memory_lost: Callable[[], None]
    is_restoring: Callable[[], bool]
    lease_seconds: float
    folder: str = ""

    async def run(self) -> None:
        while True:
            try:
                await self.step()
            except TransientError as error:
                log.log(level_of(error), "leases could not be renewed", reason=str(error))
            await asyncio.sleep(self.lease_seconds / 3)

    async def step(self) -> None:
        held = {one.stream.id: one for one in self.records() if not one.is_released}
        lost = await self.checkpoints.renew([record.lease for record in held.values()])
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
            self.on_lost(record)

    async def _watch_memory(self) -> None:
        """It may be emptied again before we have seen that it remembers."""
        if self.is_restoring() or not await self.checkpoints.is_fresh(self.folder):
            return
        if not self.is_restoring():
            log.warning("Redis was emptied: writing everything again from what we know")
            self.on_memory_lost()
