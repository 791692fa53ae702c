"""Whether a file is still at its name, and how its stream ends when it is not."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from cefmp4 import metrics
from cefmp4.ingest.ending import Ending
from cefmp4.ingest.record import StreamRecord
from cefmp4.ingest.stale import StaleOutcome
from cefmp4.ingest.uploader import Uploader
from cefmp4.recording.growth import GrowthTap
from cefmp4.tasks import cancel_all

T = TypeVar("T")

GONE_GRACE_S = 1.0  # a rename reaches us as two halves
GONE_GRACE_POLLING_S = 10.0  # there it takes the next look at the whole folder, or two


class Presence:
    def __init__(
        self,
        *,
        file: GrowthTap,
        record: StreamRecord,
        uploader: Uploader,
        ending: Ending,
        is_polling: bool,
    ) -> None:
        self._file = file
        self._record = record
        self._uploader = uploader
        self._ending = ending
        self._is_polling = is_polling

    def __repr__(self) -> str:
        return f"<Presence {self._file}>"

    @property
    def grace_left(self) -> float:
        is_late = self._is_polling and not self._file.is_replaced
        return (GONE_GRACE_POLLING_S if is_late else GONE_GRACE_S) - self._file.gone_s

    async def while_there(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Ends the work when the file turns out to be gone: None. What is on the wire is cut off,
        and what waits for a slot or for the store waits no longer."""
        working = asyncio.create_task(work, name="sending")
        gone = asyncio.create_task(self._gone_for_good(), name="absence")
        try:
            await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
            return working.result() if working.done() else None
        finally:
            await cancel_all(task for task in (working, gone) if not task.done())

    async def _gone_for_good(self) -> None:
        while await self._file.until(lambda: self._file.is_gone):
            if (left := self.grace_left) <= 0:
                return
            await asyncio.sleep(left)

    async def leave(self) -> float:
        """Ends the stream, unless the file may still turn up; returns after how many seconds to
        look for it."""
        if (left := self.grace_left) > 0:
            return left
        if self._file.is_replaced:
            await self._uploader.abandon(self._record)
            await self._ending.dropped("replaced: another file took its name")
        elif self._record.stream.upload_id:
            metrics.stale_outcomes.labels(StaleOutcome.MISSING).inc()
            reason = "missing: the file is gone from the watched folder"
            await self._ending.failed(reason, counted_as="missing")
        else:
            await self._ending.dropped("gone before anything was sent")
        return 0.0
