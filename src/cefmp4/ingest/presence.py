"""Whether a file is still at its name: work on it ends when it surely is not."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from cefmp4.ingest.proof import DisturbedError
from cefmp4.recording.growth import GrowthTap
from cefmp4.tasks import cancel_all

T = TypeVar("T")

GONE_GRACE_S = 1.0  # a rename reaches us as two halves
GONE_GRACE_POLLING_S = 10.0  # there it takes the next look at the whole folder, or two


@dataclass(frozen=True, slots=True)
class Presence:
    file: GrowthTap
    is_polling: bool

    @property
    def grace_left(self) -> float:
        is_late = self.is_polling and not self.file.is_replaced
        return (GONE_GRACE_POLLING_S if is_late else GONE_GRACE_S) - self.file.gone_s

    async def while_there(self, work: Coroutine[Any, Any, T]) -> T:
        """Raises DisturbedError, and ends the work, when the file turns out to be gone: what is on
        the wire is cut off, and what waits for a slot or for the store waits no longer."""
        working = asyncio.create_task(work, name="sending")
        gone = asyncio.create_task(self._gone_for_good(), name="absence")
        try:
            await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise DisturbedError
            return working.result()
        finally:
            await cancel_all(task for task in (working, gone) if not task.done())

    async def _gone_for_good(self) -> None:
        while await self.file.until(lambda: self.file.is_gone):
            if (left := self.grace_left) <= 0:
                return
            await asyncio.sleep(left)
