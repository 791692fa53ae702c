"""One worker per path: starts streams, hands events to them, and takes care of how they end."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog

from cefmp4 import metrics
from cefmp4.errors import CefError, LeaseLostError, SourceError
from cefmp4.ingest.admission import Admission
from cefmp4.ingest.admitted import Admitted
from cefmp4.ingest.after.completion import Completion
from cefmp4.ingest.claims import ForeignStreamError
from cefmp4.ingest.fairness import one_too_many
from cefmp4.ingest.part_slots import PartSlots
from cefmp4.ingest.processor import StreamProcessor
from cefmp4.ingest.record import StreamRecord
from cefmp4.ingest.waiting_room import Comebacks, WaitingRoom, glance
from cefmp4.ingest.work import Work
from cefmp4.model.event import EventKind, StreamEvent
from cefmp4.model.stream import FileStamp
from cefmp4.recording.clocks import Clocks
from cefmp4.recording.file import SymbolicLinkError
from cefmp4.recording.identity import take_up
from cefmp4.tasks import apart, cancel_all
from cefmp4.watch.selection import Selection

log = structlog.get_logger()

MOST_OF_BACKLOG = 128  # files of the backlog that are dealt with at the same time
GIVE_WAY_PER_BEAT = 8
STUCK_S = 2.0
LINKS_REMEMBERED = 1000  # as told of


@dataclass(slots=True)
class StreamRouter:
    admission: Admission
    selection: Selection
    completion: Completion
    slots: PartSlots
    clocks: Clocks
    make_processor: Callable[[Admitted], StreamProcessor]
    max_active: int
    foreign_pause_s: float
    _work: dict[str, Work] = field(default_factory=dict, init=False)
    _comebacks: Comebacks = field(default_factory=Comebacks, init=False)
    _told_links: set[str] = field(default_factory=set, init=False)
    _waiting: WaitingRoom = field(default_factory=WaitingRoom, init=False)
    _is_draining: bool = field(default=False, init=False)
    _begun: int = field(default=0, init=False)
    _begun_before: int = field(default=0, init=False)
    _stuck_since: float = field(default=0.0, init=False)

    def __repr__(self) -> str:
        return f"<StreamRouter work={len(self._work)} {self._waiting}>"

    @property
    def processors(self) -> list[StreamProcessor]:
        return [work.processor for work in self._work.values() if work.processor is not None]

    @property
    def records(self) -> list[StreamRecord]:
        return [processor.record for processor in self.processors]

    @property
    def pending(self) -> int:
        """Paths of which it is not known yet what they are."""
        return len(self._waiting) + sum(work.processor is None for work in self._work.values())

    # Events.

    def handle(
        self, events: Iterable[StreamEvent], seen: Mapping[str, FileStamp] | None = None
    ) -> None:
        """`seen`: the files of the look that the events are from. What only a look has found is
        backlog, until it is seen to grow; a name that appeared just now is being written to, until
        its writer closes it."""
        for event in events:
            relpath, kind = event.relpath, event.kind
            if kind is EventKind.MOVE and event.moved_from is not None:
                self._move(event.moved_from, relpath)
            elif kind is EventKind.DELETE:
                self._delete(relpath)
            elif not self._wake(event) and self.selection.wants(relpath):
                stamp = seen.get(relpath) if seen is not None else None
                is_growing = kind is EventKind.CREATE and seen is None
                self._waiting.put(
                    relpath, is_growing=is_growing, size=stamp.size if stamp else None
                )
        self._begin_next()

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
        self._waiting.discard(relpath)
        if not self._wake(StreamEvent(kind=EventKind.DELETE, relpath=relpath)):
            self.admission.index.remove(relpath)  # its record stays in Redis

    def _move(self, old: str, new: str) -> None:
        """What an event says of an active stream is true only if the disk says so: it may be late,
        or made of two looks at a folder, between which another file got the same inode. Where the
        file cannot be followed, its former name is gone; unless another stream has the new name,
        which finds out by the former one what it is when it is over."""
        if not self.selection.wants(new):
            self._delete(old)
            return
        is_growing = old in self._waiting.growing
        self._waiting.discard(old)
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
            self._waiting.put(new, is_growing=is_growing)

    def _go_on_under(self, new: str, work: Work, processor: StreamProcessor) -> None:
        log.info("renamed while uploading", file_path=new, former=work.relpath)
        del self._work[work.relpath]
        self._work[new] = work
        self._waiting.discard(new)
        work.renamed(new, processor)

    # Work.

    def start(self, relpath: str, *, is_growing: bool = True) -> None:
        """As soon as it is its turn."""
        self._waiting.put(relpath, is_growing=is_growing)
        self._begin_next()

    def _begin_next(self) -> None:
        backlog = sum(not work.is_growing for work in self._work.values())
        most = min(MOST_OF_BACKLOG, max(1, self.max_active - 1))
        while len(self._work) < self.max_active and not self._is_draining:
            taken = self._waiting.take_next(may_be_backlog=backlog < most)
            if taken is None:
                return
            relpath, is_growing = taken
            backlog += not is_growing
            self._begin(Work(relpath, was_growing=is_growing))

    def _begin(self, work: Work) -> None:
        if work.relpath not in self._work:
            self._work[work.relpath] = work
            work.task = apart(self._carry_out(work), name=f"stream at {work.relpath!r}")
            self._begun += 1

    async def _carry_out(self, work: Work) -> None:
        """The guard of rule 15: what goes wrong with one path stops nothing else."""
        try:
            await self._work_on(work)
        except (ForeignStreamError, LeaseLostError):
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
            self.start(work.relpath, is_growing=work.was_growing)

    def _leave(self, work: Work) -> None:
        """A name that went before its end was known is forgotten now: no event comes after."""
        if self._work.get(work.relpath) is work:
            del self._work[work.relpath]
            if work.was_deleted:
                self.admission.index.remove(work.relpath)
        if work.gives_way_to is not None and not self._is_draining:
            self._waiting.put(work.relpath, is_growing=work.was_growing)
            self._begin(work.gives_way_to)
        self._begin_next()

    # Who waits.

    async def tend_waiting(self, now: float) -> None:
        """Finds what grows while it waits, and lets nobody wait for good because another folder has
        all the room."""
        some = self._waiting.next_to_glance_at()
        if some:
            self._waiting.note(await asyncio.to_thread(glance, self.admission.root, some))
            self._begin_next()
        first = self._waiting.first()
        if first is None or self._begun > self._begun_before:
            self._begun_before, self._stuck_since = self._begun, now
        elif now - self._stuck_since >= STUCK_S:
            self._make_room()

    def _make_room(self) -> None:
        """Nothing has ended for a while, so nothing else could begin."""
        for _ in range(GIVE_WAY_PER_BEAT):
            if (first := self._waiting.first()) is None:
                return
            is_growing = first in self._waiting.growing
            held = {
                path: work
                for path, work in self._work.items()
                if work.may_give_way and (is_growing or not work.is_growing)
            }
            chosen = one_too_many(held, first)
            if chosen is None:
                self._waiting.give_turn_away(first)
                continue
            log.info("a stream waits, for another folder's turn", file_path=chosen, other=first)
            self._waiting.discard(first)
            held[chosen].give_way(Work(first, was_growing=is_growing))

    def _tell_of_link(self, relpath: str, error: SymbolicLinkError) -> None:
        """Once, and nothing is tried again: what takes its place is an event."""
        self._comebacks.discard(relpath)
        if len(self._told_links) >= LINKS_REMEMBERED:
            self._told_links.clear()
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
        admitted = await self.admission.admit(work.relpath, self._is_at_work)
        self._comebacks.discard(work.relpath)
        if admitted is None:
            return
        stream = admitted.record.stream
        structlog.contextvars.bind_contextvars(stream_id=stream.id)
        processor = self.make_processor(admitted)
        with admitted.source, self._dealing_with(processor, work):
            if not stream.is_proven:
                begins = "stream begins" if admitted.is_new else "stream goes on"
                log.info(begins, file_path=stream.relpath, generation=stream.generation)
                await processor.run()
            has_changed = await self.completion.conclude(processor)
            work.again = work.again or has_changed

    @contextmanager
    def _dealing_with(self, processor: StreamProcessor, work: Work) -> Iterator[None]:
        stream_id, work.processor = processor.record.stream.id, processor
        metrics.active_streams.inc()
        metrics.streams.begin(stream_id)
        try:
            yield
        finally:
            work.processor = None
            metrics.active_streams.dec()
            metrics.streams.end(stream_id, self.clocks.monotonic())

    def _is_at_work(self, stream_id: str) -> bool:
        return any(record.stream.id == stream_id for record in self.records)

    def _come_back(self, work: Work, *, pause: float | None = None) -> None:
        now = self.clocks.monotonic()
        self._comebacks.put(work.relpath, now, is_growing=work.was_growing, pause_s=pause)

    def start_comebacks(self, now: float) -> None:
        for relpath, is_growing in self._comebacks.due(now):
            if relpath not in self._work:
                self._comebacks.began(relpath)
                self.start(relpath, is_growing=is_growing)

    def fence_off(self, record: StreamRecord) -> None:
        """Another instance owns the stream: whatever we are doing with it stops now."""
        for work in self._work.values():
            if work.processor is not None and work.processor.record is record:
                log.warning("stream was taken over by another instance", file_path=work.relpath)
                self._come_back(work, pause=self.foreign_pause_s)
                work.cancel()

    # The end.

    async def drain(self, timeout_s: float) -> None:
        """Parts on the wire may arrive; then everything stops where it is, as after a crash."""
        self._is_draining = True
        await self.slots.drain(timeout_s)
        await cancel_all(work.task for work in self._work.values() if work.task is not None)


def _find_renamed(processors: list[StreamProcessor], relpath: str) -> StreamProcessor | None:
    """The active stream whose file has this name now: where events do not tell of renames, a
    growing file shows up as a new one. Blocking."""
    for processor in processors:
        source, record = processor.source, processor.record
        if source.relpath == relpath:
            continue
        plan, parts = record.stream.plan, dict(record.parts)
        if source.is_found_at(relpath) or take_up(source, relpath, plan, parts):
            return processor
        if source.may_be_at(relpath):
            raise ForeignStreamError  # one name or the other is of the past: ask again
    return None
