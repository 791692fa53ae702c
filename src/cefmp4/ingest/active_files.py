"""The beat of the service: looks at every file that is being recorded, and tells how far we are."""

import asyncio
import os
from dataclasses import dataclass, field, replace

import structlog

from cefmp4 import metrics
from cefmp4.errors import SourceError
from cefmp4.ingest.processor import StreamProcessor
from cefmp4.ingest.router import StreamRouter
from cefmp4.model.view import StreamView, view_of_record
from cefmp4.recording.clocks import Clocks
from cefmp4.recording.file import FileSample

log = structlog.get_logger()

SPEED_MEMORY = 0.7  # how much of the former speed stays in each new figure


@dataclass(slots=True, kw_only=True)
class ActiveFiles:
    """Polling the few active files replaces a storm of modification events."""

    root: str
    router: StreamRouter
    clocks: Clocks
    interval_s: float
    last_step_at: float = field(default=0.0, init=False)
    # Of each stream's id: time, bytes, speed.
    _progress: dict[str, tuple[float, int, float]] = field(default_factory=dict, init=False)

    async def run(self) -> None:
        while True:
            await self.step(self.clocks.monotonic())
            await asyncio.sleep(self.interval_s)

    async def step(self, now: float) -> None:
        processors = self.router.processors
        for processor, look in await asyncio.to_thread(self._look_at, processors):
            if look is not None:
                processor.observe(look)
        self.router.start_comebacks(now)
        await self.router.tend_waiting(now)
        self._measure(processors, now)
        metrics.streams.sweep(now)
        self.last_step_at = now

    def _look_at(
        self, processors: list[StreamProcessor]
    ) -> list[tuple[StreamProcessor, FileSample | None]]:
        if not os.path.isdir(self.root):
            return []  # unmounted: that says nothing about the files in it
        return [(processor, _look(processor)) for processor in processors]

    def _measure(self, processors: list[StreamProcessor], now: float) -> None:
        behind, oldest = 0, 0.0
        progress: dict[str, tuple[float, int, float]] = {}
        for processor in processors:
            record = processor.record
            stored = record.stored_bytes
            behind += max(0, record.stream.size - stored)
            oldest = max(oldest, processor.seconds_behind)
            then, before, speed = self._progress.get(record.stream.id, (now, stored, 0.0))
            if now > then:
                speed = speed * SPEED_MEMORY + (stored - before) / (now - then) * (1 - SPEED_MEMORY)
            progress[record.stream.id] = (now, stored, speed)
        self._progress = progress
        metrics.open_uploads.set(sum(bool(one.record.stream.upload_id) for one in processors))
        metrics.bytes_behind.set(behind)
        metrics.seconds_behind.set(oldest)

    def views(self) -> list[StreamView]:
        """The streams that are worked on now."""
        return [self._view(processor) for processor in self.router.processors]

    def _view(self, processor: StreamProcessor) -> StreamView:
        stream, stored = processor.record.stream, processor.record.stored_bytes
        _, _, speed = self._progress.get(stream.id, (0.0, 0, 0.0))
        return replace(
            view_of_record(stream),
            size=stream.size,
            uploaded=min(stored, stream.size),
            behind_bytes=max(0, stream.size - stored),
            behind_seconds=processor.seconds_behind,
            bytes_per_second=max(0.0, speed),
        )


def _look(processor: StreamProcessor) -> FileSample | None:
    try:
        return processor.source.look()
    except (SourceError, OSError):
        return None  # closed meanwhile, or a file system in trouble: the next beat looks again
