"""What goes on at one path, or will."""

import asyncio
from dataclasses import dataclass, field

from cefmp4.ingest.processor import StreamProcessor
from cefmp4.model.stream import StreamState

_MAY_GIVE_WAY = (StreamState.DISCOVERED, StreamState.UPLOADING, StreamState.STALE)


@dataclass(slots=True, eq=False)
class Work:
    """`was_growing`: when its turn came; else it was backlog. `again`: something happened that the
    present run may have missed. `was_deleted`: the name went before it was known what is finished
    there."""

    relpath: str
    was_growing: bool = field(kw_only=True)
    again: bool = False
    was_deleted: bool = False
    task: "asyncio.Task[None] | None" = None
    processor: StreamProcessor | None = None  # while there is a stream
    gives_way_to: "Work | None" = None  # of another folder; it waits for its turn again

    def __repr__(self) -> str:
        return f"<Work {self.relpath!r} {self.processor}>"

    def cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()

    def give_way(self, other: "Work") -> None:
        self.gives_way_to = other
        self.cancel()

    def renamed(self, relpath: str, processor: StreamProcessor) -> None:
        """Its stream goes on there. If that is over, its record may be written already."""
        self.relpath, self.was_deleted = relpath, False
        self.again = self.again or processor.end is not None
        processor.renamed(relpath)

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
    def is_growing(self) -> bool:
        has_grown = self.processor is not None and self.processor.record.has_grown
        return self.was_growing or has_grown
