"""What people and programs are shown of a stream: the record plus how far it has come."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from cefmp4.model.stream import FINAL_STATES, Stream, StreamState


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamView:
    id: str
    relpath: str
    generation: int
    state: StreamState
    reason: str
    key: str
    size: int  # bytes on disk
    uploaded: int  # bytes stored
    behind_bytes: int
    behind_seconds: float
    bytes_per_second: float
    playable: bool | None
    started_at: float
    updated_at: float
    host: str

    @property
    def is_ended(self) -> bool:
        return self.state in FINAL_STATES

    def to_fields(self) -> dict[str, Any]:
        """For JSON, under the same names."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def view_of_record(stream: Stream) -> StreamView:
    """What the record alone tells, when no instance works on the stream. Parts that were skipped by
    a crash are not seen here: `uploaded` is where the next byte would go."""
    is_known = stream.is_proven or stream.is_final
    size = stream.size if is_known else max(stream.size, stream.sent_high)
    uploaded = size if stream.is_proven else min(stream.sent_high, size)
    return StreamView(
        id=stream.id,
        relpath=stream.relpath,
        generation=stream.generation,
        state=stream.state,
        reason=stream.reason,
        key=stream.key,
        size=size,
        uploaded=uploaded,
        behind_bytes=0 if is_known else size - uploaded,
        behind_seconds=0.0,
        bytes_per_second=0.0,
        playable=stream.playable,
        started_at=stream.started_at,
        updated_at=stream.updated_at,
        host=stream.host,
    )


def most_telling(views: Iterable[StreamView], limit: int) -> list[StreamView]:
    """What is still going on first, then the latest changes."""
    return sorted(views, key=lambda view: (not view.is_ended, view.updated_at), reverse=True)[
        :limit
    ]


def totals_of(views: Sequence[StreamView]) -> dict[str, Any]:
    return {
        "streams": dict(Counter(view.state for view in views)),
        "active_streams": sum(not view.is_ended for view in views),
        "bytes_behind": sum(view.behind_bytes for view in views),
        "seconds_behind": max((view.behind_seconds for view in views), default=0.0),
        "bytes_per_second": sum(view.bytes_per_second for view in views),
    }
