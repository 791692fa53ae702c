"""All streams as the commands show them: the records, and over them what living instances say."""

import time

from cefmp4.model.view import StreamView, view_of_record
from cefmp4.ports.checkpoints import CheckpointStore

RECORDS_FRESH_S = 10.0  # reading 100,000 records takes seconds; what changes comes from instances
FEW_RECORDS = 1000


class Board:
    def __init__(self, checkpoints: CheckpointStore) -> None:
        self._checkpoints = checkpoints
        self._records: dict[str, StreamView] = {}
        self._read_at: float | None = None

    async def views(self) -> list[StreamView]:
        if self._are_records_due():
            streams = await self._checkpoints.load_streams()
            self._records = {stream.id: view_of_record(stream) for stream in streams}
            self._read_at = time.monotonic()
        views = dict(self._records)
        for view in await self._checkpoints.load_views():
            views[view.id] = _newer(view, views.get(view.id))
        return list(views.values())

    async def notes(self) -> dict[str, str]:
        """Why living instances cannot work, by their names."""
        return await self._checkpoints.load_notes()

    def _are_records_due(self) -> bool:
        if self._read_at is None or len(self._records) <= FEW_RECORDS:
            return True
        return time.monotonic() - self._read_at >= RECORDS_FRESH_S


def _newer(live: StreamView, recorded: StreamView | None) -> StreamView:
    """What an instance said last outlives the end of the stream by seconds."""
    if recorded is not None and recorded.is_ended and recorded.updated_at >= live.updated_at:
        return recorded
    return live
