"""Keeps our leases alive."""

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
    """`records` are the streams we work on now."""

    checkpoints: CheckpointStore
    records: Callable[[], Iterable[StreamRecord]]
    on_lost: Callable[[StreamRecord], None]
    lease_seconds: float

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
