"""The stale-stream checker: finds the streams nothing has happened to for the stream timeout."""

from collections.abc import Iterable

from cefmp4.ingest.processor import StreamProcessor
from cefmp4.model.event import EventKind, StreamEvent


class StaleStreamChecker:
    """Each quiet spell is reported once; a change starts the next one."""

    def __init__(self, *, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._reported: set[str] = set()

    def find_stale(self, processors: Iterable[StreamProcessor]) -> list[StreamEvent]:
        quiet = {
            processor.record.stream.id: processor.source.relpath
            for processor in processors
            if processor.quiet_s >= self._timeout_s
        }
        events = [
            StreamEvent(kind=EventKind.IDLE, relpath=relpath)
            for stream_id, relpath in quiet.items()
            if stream_id not in self._reported
        ]
        self._reported = set(quiet)
        return events
