"""What goes on at one path, or will."""

import asyncio
from dataclasses import dataclass

from cefmp4.ingest.processor import StreamProcessor
from cefmp4.model.stream import StreamState

_MAY_GIVE_WAY = (StreamState.DISCOVERED, StreamState.UPLOADING, StreamState.STALE)


@dataclass(slots=True)
class Work:
    relpath: str
    was_backlog: bool = False  # when its turn came
    task: "asyncio.Task[None] | None" = None
    processor: StreamProcessor | None = None
    again: bool = False  # something happened that the present run may have missed
    was_deleted: bool = False  # the name went before it was known what is finished there
    gives_way_to: "Work | None" = None  # of another folder; then it waits for its turn again

    def give_way(self, other: "Work") -> None:
        self.gives_way_to = other
        if self.task is not None:
            self.task.cancel()

    @property
    def may_give_way(self) -> bool:
        processor = self.processor
        return (
            processor is not None
            and processor.end is None
            and processor.record.stream.state in _MAY_GIVE_WAY
            and self.gives_way_to is None
        )

    @property
    def is_backlog(self) -> bool:
        has_grown = self.processor is not None and self.processor.record.has_grown
        return self.was_backlog and not has_grown


@dataclass(slots=True)
class Comeback:
    """A path that must be looked at again although no event will come."""

    at: float
    failures: int = 0
    is_backlog: bool = False
