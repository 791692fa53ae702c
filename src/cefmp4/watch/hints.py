"""What the kernel told about the folder and nobody has fetched yet, merged per name and bounded."""

import threading
from dataclasses import dataclass
from enum import Enum, auto

from cefmp4.model.event import EventKind, StreamEvent


@dataclass(slots=True)
class _Hint:
    moved_from: str | None = None
    last: EventKind | None = None

    def note(self, kind: EventKind) -> None:
        """A close is not forgotten for a creation, which a new folder reports twice; and a name
        that is gone stays gone when the last writer of the unlinked file closes it."""
        if self.last is EventKind.CLOSE and kind is EventKind.CREATE:
            return
        if self.last is EventKind.DELETE and kind is EventKind.CLOSE:
            return
        self.last = kind


class Put(Enum):
    FIRST = auto()  # somebody must be woken
    MORE = auto()
    DROPPED = auto()  # it was full, and is empty now


class HintBuffer:
    """Filled by the observer's thread, emptied by the event loop. When `limit` names wait, all are
    dropped: the caller asks for a rescan, which costs less than a longer queue."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._hints: dict[str, _Hint] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<HintBuffer {len(self._hints)} of {self._limit}>"

    def put(self, event: StreamEvent) -> Put:
        with self._lock:
            was_empty = not self._hints
            if event.moved_from is not None:
                self._move(event.moved_from, event.relpath)
            else:
                self._hints.setdefault(event.relpath, _Hint()).note(event.kind)
            if len(self._hints) > self._limit:
                self._hints.clear()
                return Put.DROPPED
            return Put.FIRST if was_empty else Put.MORE

    def drain(self) -> list[StreamEvent]:
        with self._lock:
            hints, self._hints = self._hints, {}
        return [event for relpath, hint in hints.items() for event in _events(relpath, hint)]

    def _move(self, source: str, target: str) -> None:
        """A chain of renames becomes one from its first name. The target goes to the end, behind
        whatever left that name free."""
        former = self._hints.pop(source, _Hint())
        overwritten = self._hints.pop(target, None)
        origin = former.moved_from or source
        closed = EventKind.CLOSE if former.last is EventKind.CLOSE else None
        if origin == target:  # there and back again
            self._hints[target] = _Hint(last=closed or EventKind.CREATE)
            return
        if overwritten is not None and overwritten.moved_from not in (None, origin):
            gone = overwritten.moved_from
            assert gone is not None
            self._hints.setdefault(gone, _Hint(last=EventKind.DELETE))
        self._hints[target] = _Hint(moved_from=origin, last=closed)


def _events(relpath: str, hint: _Hint) -> list[StreamEvent]:
    events = []
    if hint.moved_from is not None:
        events.append(StreamEvent(kind=EventKind.MOVE, relpath=relpath, moved_from=hint.moved_from))
    if hint.last is not None:
        events.append(StreamEvent(kind=hint.last, relpath=relpath))
    return events
