"""One worker per path: starts streams, hands events to them, and takes care of how they end."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import structlog

from cefmp4 import metrics
from cefmp4.errors import CefError, LeaseLostError, SourceError
from cefmp4.ingest.conclusion import Conclusion
from cefmp4.ingest.ending import End
from cefmp4.ingest.intake import Admitted, ForeignStreamError, Intake
from cefmp4.ingest.lost import take_up
from cefmp4.ingest.observation import Clocks
from cefmp4.ingest.processor import StreamProcessor
from cefmp4.ingest.record import StreamRecord
from cefmp4.ingest.slots import PartSlots
from cefmp4.ingest.source import SymbolicLinkError
from cefmp4.model.event import EventKind, StreamEvent
from cefmp4.retry import Backoff
from cefmp4.tasks import apart, cancel_all
from cefmp4.watch.selection import Selection

log = structlog.get_logger()

COMEBACK = Backoff(first_s=2.0, cap_s=60.0)  # for a stream that crashed on a bug, or is unreadable


@dataclass(slots=True)
class Work:
    """What goes on at one path."""

    relpath: str
    task: "asyncio.Task[None] | None" = None
    processor: StreamProcessor | None = None
    again: bool = False  # something happened that the present run may have missed
    was_deleted: bool = False  # the name went before it was known what is finished there


@dataclass(slots=True)
class Comeback:
    """A path that must be looked at again although no event will come."""

    at: float
    failures: int = 0


@dataclass(slots=True)
class StreamRouter:
    intake: Intake
    selection: Selection
    conclusion: Conclusion
    slots: PartSlots
    clocks: Clocks
    make_processor: Callable[[Admitted], StreamProcessor]
    max_active: int
    foreign_pause_s: float
    _work: dict[str, Work] = field(default_factory=dict)
    _comebacks: dict[str, Comeback] = field(default_factory=dict)
    _processors: list[StreamProcessor] = field(default_factory=list)
    _told_links: set[str] = field(default_factory=set)
    _active: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self._active = asyncio.Semaphore(self.max_active)

    def __repr__(self) -> str:
        return f"<StreamRouter work={len(self._work)} comebacks={len(self._comebacks)}>"

    @property
    def processors(self) -> list[StreamProcessor]:
        return list(self._processors)

    @property
    def records(self) -> list[StreamRecord]:
        return [processor.record for processor in self.processors]

    @property
    def pending(self) -> int:
        """Paths of which it is not known yet what they are."""
        return sum(work.processor is None for work in self._work.values())

    # Events.

    def handle(self, events: Iterable[StreamEvent]) -> None:
        for event in events:
            if event.kind is EventKind.MOVE and event.moved_from is not None:
                self._move(event.moved_from, event.relpath)
            elif event.kind is EventKind.DELETE:
                self._delete(event.relpath)
            elif not self._wake(event) and self.selection.wants(event.relpath):
                self.start(event.relpath)

    def _wake(self, event: StreamEvent) -> bool:
        work = self._work.get(event.relpath)
        if work is None:
            return False
        if event.kind in (EventKind.DELETE, EventKind.CREATE):
            work.was_deleted = event.kind is EventKind.DELETE
        if work.processor is None:
            work.again = event.kind is not EventKind.DELETE
        else:
            work.processor.notify(event.kind)
        return True

    def _delete(self, relpath: str) -> None:
        if not self._wake(StreamEvent(kind=EventKind.DELETE, relpath=relpath)):
            self.conclusion.forget_path(relpath)

    def _move(self, old: str, new: str) -> None:
        """What an event says of an active stream is true only if the disk says so: it may be late,
        or made of two looks at a folder, between which another file got the same inode. Where the
        file cannot be followed, its former name is gone; unless another stream has the new name,
        which finds out by the former one what it is when it is over."""
        if not self.selection.wants(new):
            self._delete(old)
            return
        work, is_free = self._work.get(old), new not in self._work
        if work is not None and work.processor is not None:
            if not is_free:
                work.processor.notify(EventKind.DELETE)
            elif work.processor.source.is_found_at(new):
                self._go_on_under(new, work, work.processor)
                return
            else:
                self._delete(old)
        if is_free:
            self.start(new)

    def _go_on_under(self, new: str, work: Work, processor: StreamProcessor) -> None:
        log.info("renamed while uploading", file_path=new, former=work.relpath)
        del self._work[work.relpath]
        self._work[new] = work
        work.relpath, work.was_deleted = new, False
        work.again = work.again or processor.end is not None  # its record may be written already
        processor.renamed(new)

    # Work.

    def start(self, relpath: str) -> None:
        work = Work(relpath)
        self._work[relpath] = work
        work.task = apart(self._carry_out(work), name=f"stream at {relpath!r}")

    async def _carry_out(self, work: Work) -> None:
        """The guard of rule 15: what goes wrong with one path stops nothing else."""
        try:
            async with self._active:
                await self._work_on(work)
        except ForeignStreamError:
            self._come_back(work, pause=self.foreign_pause_s)
        except SymbolicLinkError as error:
            self._tell_of_link(work.relpath, error)
        except SourceError as error:
            if work.relpath not in self._comebacks:  # said and counted once
                log.error("cannot read a file", file_path=work.relpath, reason=str(error))  # noqa: TRY400
                metrics.count_failure("read")
            self._come_back(work)
        except CefError as error:
            log.error("stream stopped", file_path=work.relpath, reason=str(error))  # noqa: TRY400
            metrics.count_failure("failed")
            self._come_back(work)
        except Exception:
            log.exception("stream crashed", file_path=work.relpath)
            metrics.count_failure("crash")
            self._come_back(work)
        finally:
            self._leave(work)
        if work.again and work.relpath not in self._work:
            self.start(work.relpath)

    def _leave(self, work: Work) -> None:
        """A name that went before its end was known is forgotten now: no event comes after."""
        if self._work.get(work.relpath) is work:
            del self._work[work.relpath]
            if work.was_deleted:
                self.conclusion.forget_path(work.relpath)

    def _tell_of_link(self, relpath: str, error: SymbolicLinkError) -> None:
        """Once, and nothing is tried again: what takes its place is an event."""
        if relpath not in self._told_links:
            self._told_links.add(relpath)
            log.warning(str(error), file_path=relpath)

    async def _work_on(self, work: Work) -> None:
        work.again = False
        renamed = await asyncio.to_thread(_find_renamed, self.processors, work.relpath)
        former = self._work.get(renamed.source.relpath) if renamed is not None else None
        if renamed is not None and former is not None and former.processor is renamed:
            left = former.relpath
            self._go_on_under(work.relpath, former, renamed)
            if left not in self._work:
                self.start(left)  # an event of a new file there may have met the former one
            return
        admitted = await self.intake.admit(work.relpath, self._is_at_work)
        self._comebacks.pop(work.relpath, None)
        if admitted is None:
            return
        stream = admitted.record.stream
        structlog.contextvars.bind_contextvars(stream_id=stream.id)
        processor = self.make_processor(admitted)
        work.processor = processor
        self._processors.append(processor)
        metrics.active_streams.inc()
        metrics.streams.begin(stream.id)
        try:
            if stream.is_proven:
                processor.ending.end = End.STORED
            else:
                begins = "stream begins" if admitted.is_new else "stream goes on"
                log.info(begins, file_path=stream.relpath, generation=stream.generation)
                await processor.run()
            await self._conclude(work, processor, admitted)
        finally:
            metrics.active_streams.dec()
            metrics.streams.end(stream.id, self.clocks.monotonic())
            work.processor = None
            self._processors.remove(processor)
            admitted.source.close()

    def _is_at_work(self, stream_id: str) -> bool:
        return any(one.record.stream.id == stream_id for one in self._processors)

    async def _conclude(self, work: Work, processor: StreamProcessor, admitted: Admitted) -> None:
        try:
            has_changed = await self.conclusion.conclude(processor, admitted.former)
        except LeaseLostError:
            processor.ending.end = End.FENCED
            has_changed = False
        if processor.end is End.FENCED:
            raise ForeignStreamError
        work.again = work.again or has_changed

    def _come_back(self, work: Work, *, pause: float | None = None) -> None:
        before = self._comebacks.get(work.relpath)
        failures = before.failures + 1 if before else 1
        wait = pause if pause is not None else COMEBACK.wait_s(failures)
        self._comebacks[work.relpath] = Comeback(self.clocks.monotonic() + wait, failures)

    def start_comebacks(self, now: float) -> None:
        for relpath in [path for path, comeback in self._comebacks.items() if comeback.at <= now]:
            comeback = self._comebacks[relpath]
            if relpath not in self._work:
                self.start(relpath)
                self._comebacks[relpath] = Comeback(float("inf"), comeback.failures)

    def fence_off(self, record: StreamRecord) -> None:
        """Another instance owns the stream: whatever we are doing with it stops now."""
        for work in self._work.values():
            if work.processor is not None and work.processor.record is record and work.task:
                log.warning("stream was taken over by another instance", file_path=work.relpath)
                self._come_back(work, pause=self.foreign_pause_s)
                work.task.cancel()

    # The end.

    async def drain(self, timeout_s: float) -> None:
        """Parts on the wire may arrive; then everything stops where it is, as after a crash."""
        await self.slots.drain(timeout_s)
        await cancel_all(work.task for work in self._work.values() if work.task is not None)


def _find_renamed(processors: list[StreamProcessor], relpath: str) -> StreamProcessor | None:
    """The active stream whose file has this name now: where events do not tell of renames, a
    growing file shows up as a new one. Blocking."""
    for processor in processors:
        source = processor.source
        if source.relpath != relpath and (
            source.is_found_at(relpath) or take_up(source, processor.record, relpath)
        ):
            return processor
        if source.relpath != relpath and source.may_be_at(relpath):
            raise ForeignStreamError  # one name or the other is of the past: ask again
    return None
