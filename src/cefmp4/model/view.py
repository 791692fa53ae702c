"""What people and programs are shown of a stream: the record plus how far it has come."""

from dataclasses import dataclass

from cefmp4.model.stream import StreamState


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
