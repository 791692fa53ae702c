"""What a watched folder tells us. Events are hints: the file itself is the truth."""

from dataclasses import dataclass
from enum import StrEnum


class EventKind(StrEnum):
    CREATE = "create"  # a name appeared
    WRITE = "write"  # the file behind a name changed
    CLOSE = "close"  # a writer closed it
    MOVE = "move"  # renamed inside the folder; `relpath` is the new name
    DELETE = "delete"  # the name is gone (deleted, or renamed out of the folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamEvent:
    """`relpath` is relative to the watched folder; invalid UTF-8 is kept as surrogate escapes."""

    kind: EventKind
    relpath: str
    moved_from: str | None = None
