"""One stream from first sight to its proven object: the only place that decides its next step."""

import asyncio
from dataclasses import dataclass
from itertools import islice

import structlog

from cefmp4 import metrics
from cefmp4.errors import (
    KeyTakenError,
    LeaseLostError,
    PermanentError,
    ProofFailedError,
    SourceError,
    UploadGoneError,
)
from cefmp4.ingest.admitted import Admitted
from cefmp4.ingest.fate import End, Fate
from cefmp4.ingest.object_keys import ObjectKeys
from cefmp4.ingest.presence import Presence
from cefmp4.ingest.proof import DisturbedError, Proof
from cefmp4.ingest.rules import (
    Facts,
    Move,
    StaleOutcome,
    WaitingTimes,
    full_parts,
    is_stale,
    judge_stale,
    next_move,
)
from cefmp4.ingest.uploader import Uploader
from cefmp4.ingest.writer_profile import WriterProfiles
from cefmp4.model.event import EventKind
from cefmp4.model.part import MAX_OBJECT_BYTES
from cefmp4.model.stream import StreamState
from cefmp4.recording.clocks import Clocks
from cefmp4.recording.file import DescriptorLostError, FileSample
from cefmp4.recording.growth import GrowthTap
from cefmp4.recording.holes import Holes
from cefmp4.recording.identity import take_up
from cefmp4.recording.write_guard import WriteGuards, WriteGuardState
from cefmp4.tasks import comes

log = structlog.get_logger()

PARTS_PER_TURN = 16  # a stream that is far behind lets the others in after that many
HOLES_PAUSE_S = 5.0
HOLES_PATIENCE_S = 600.0  # that a file which is mostly holes waits for its data
LOST_PAUSE_S = 0.2
TROUBLE_PAUSE_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamTools:
    """What all streams are worked on with. `trusts_ctime` is false where the folder is polled."""

    uploader: Uploader
    keys: ObjectKeys
    write_guards: WriteGuards
    writer_profiles: WriterProfiles
    times: WaitingTimes
    clocks: Clocks
    trusts_ctime: bool
    holes_limit_bytes: int


class StreamProcessor:
    def __init__(self, admitted: Admitted, tools: StreamTools) -> None:
        self.admitted = admitted
        self.record = admitted.record
        self.source = admitted.source
        self.fate = Fate(
            record=admitted.record,
            uploader=tools.uploader,
            keys=tools.keys,
            writer_profiles=tools.writer_profiles,
        )
        self._tools = tools
        self._file = GrowthTap(clocks=tools.clocks, trusts_ctime=tools.trusts_ctime)
        self._presence = Presence(self._file, is_polling=not tools.trusts_ctime)
        self._holes = Holes(admitted.source, limit_bytes=tools.holes_limit_bytes)
        self._wake = asyncio.Event()
        self._close_reported = False
        self._is_renamed = False  # and its record does not say so yet
        self._disturbed = 0
        self._next_part_at = 0
        self._is_unseen = False  # the last look at the file, or reading of it, failed

    def __repr__(self) -> str:
        return f"<StreamProcessor {self.record!r} disturbed={self._disturbed}>"

    # What the outside tells: none of these does any work itself.

    def notify(self, kind: EventKind) -> None:
        if kind is EventKind.CLOSE:
            self._close_reported = True
            if self.end is None and not self.record.stream.is_proven:
                self.record.closed(self._tools.clocks.wall())
        self._wake.set()

    def renamed(self, relpath: str) -> None:
        self.source.renamed(relpath)
        self.record.renamed(relpath)
        self._file.renamed()
        self._is_renamed = True
        self._wake.set()

    def observe(self, look: FileSample) -> None:
        """Takes in what the disk says now; wakes the stream when there is something to do."""
        if not self._file.take(look):
            return
        stream = self.record.stream
        if self.end is not None or stream.is_proven:
            return  # the record tells of the bytes that were dealt with, not of what comes later
        self.record.seen(look.stamp)
        is_shorter = look.stamp.size < stream.sent_high
        if self._file.is_gone or is_shorter or look.stamp.size >= self._next_part_at:
            self._wake.set()

    @property
    def end(self) -> End | None:
        return self.fate.end

    @property
    def seconds_behind(self) -> float:
        """How long bytes have been on the disk that are not stored."""
        is_behind = self.record.stored_bytes < self.record.stream.size
        return self._file.unsent_s if is_behind else 0.0

    # The loop and its step.

    async def run(self) -> End:
        try:
            while self.end is None:
                pause = await self._guarded_step()
                if self.end is None and pause > 0:
                    await comes(self._wake, within_s=pause)
            return self.end
        finally:
            self._file.end()

    async def _guarded_step(self) -> float:
        """One step, with what may go wrong in it turned into the stream's next state."""
        try:
            pause = await self.step()
            if self._is_unseen:
                self._is_unseen = False
                log.info("the file can be read again", file_path=self.record.stream.relpath)
            return pause
        except LeaseLostError as error:
            log.warning("stream was taken over by another instance", reason=str(error))
            self.fate.fenced()
        except UploadGoneError:
            self._next_part_at = 0
            await self.fate.upload_gone()
        except ProofFailedError as error:
            await self.fate.distrusted(error)
            return TROUBLE_PAUSE_S
        except DescriptorLostError as error:
            log.info("the open file is lost, looking for it by its name", reason=str(error))
            return LOST_PAUSE_S
        except (SourceError, OSError) as error:
            return self._wait_for_sight(error)
        except KeyTakenError as error:
            self._next_part_at = 0
            await self.fate.key_taken(error)
        except PermanentError as error:
            await self.fate.failed(str(error))
        return 0.0

    def _wait_for_sight(self, error: Exception) -> float:
        """What cannot be looked at now is neither changed nor gone: the next step looks again."""
        if not self._is_unseen:
            self._is_unseen = True
            path = self.record.stream.relpath
            log.warning("cannot read the file, waiting for it", file_path=path, reason=str(error))
            metrics.count_failure("read", self.record.stream.id)
        self._wake.clear()
        return TROUBLE_PAUSE_S

    async def step(self) -> float:
        """Does the next thing; returns the seconds after which to look again."""
        self._wake.clear()
        if self._is_renamed:
            self._is_renamed = False
            await self.record.save()  # else a new file of the former name would be taken for it
        is_news = self._close_reported or self._is_unseen or self.source.is_lost
        if self._file.stamp is None or is_news or self._file.is_gone:
            await self._look()
        facts = self._facts()
        move, stale = next_move(facts, self._tools.times), None
        if is_stale(facts, self._tools.times):
            stale = judge_stale(facts, self.record.stored_bytes)
            await self._show_stale(stale)
        if move is Move.GONE:
            return await self._leave()
        if facts.size > MAX_OBJECT_BYTES:
            await self.fate.failed("the file is bigger than any S3 object may be")
            return 0.0
        if move is Move.TRUNCATED:
            if await self.admitted.is_overwritten():
                await self.fate.overwritten(facts.size)
            else:
                await self.fate.truncated(facts.size)
            return 0.0
        if move is Move.PROVE:
            return await self._wait_for_data() or await self._finalize(stale)
        return await self._send(facts)

    async def _look(self) -> None:
        close_reported, self._close_reported = self._close_reported, False
        try:
            self.observe(await asyncio.to_thread(self.source.look))
        except (SourceError, OSError):
            self._close_reported = self._close_reported or close_reported
            raise
        if self._file.is_replaced and self.source.is_lost:
            await self._take_up_again()
        self._file.saw_close = self._file.saw_close or close_reported

    async def _take_up_again(self) -> None:
        """Where inode numbers are not kept, the file may be there still, under another number."""
        stream, parts = self.record.stream, self.record.parts
        if await asyncio.to_thread(take_up, self.source, stream.relpath, stream.plan, parts):
            self.observe(await asyncio.to_thread(self.source.look))

    async def _leave(self) -> float:
        """Ends the stream, unless the file may still turn up; returns after how many seconds to
        look for it."""
        if (left := self._presence.grace_left) > 0:
            return left
        await self.fate.gone(is_replaced=self._file.is_replaced)
        return 0.0

    async def _show_stale(self, outcome: StaleOutcome) -> None:
        if self.record.stream.state in (StreamState.DISCOVERED, StreamState.UPLOADING):
            await self.record.move_to(StreamState.STALE, outcome)

    def _facts(self) -> Facts:
        quiet = self._file.quiet_s
        may_be_done = quiet >= self._tools.times.before_proof or self._file.was_at_rest
        writer_state = self._tools.write_guards.writer_state
        return Facts(
            size=self.record.stream.size,
            sent_high=self.record.stream.sent_high,
            quiet_s=quiet,
            in_place=not self._file.is_gone,
            writer=writer_state(self.source.fd) if may_be_done else WriteGuardState.WRITER,
            saw_close=self._file.saw_close,
            was_at_rest=self._file.was_at_rest,
            may_speculate=self._disturbed == 0,
        )

    def _next_look(self, facts: Facts) -> float:
        """Seconds until one of the waiting times is over."""
        times = self._tools.times
        marks = (times.before_proof, times.settle, times.unknown_writer, times.idle)
        ahead = [mark - facts.quiet_s for mark in marks if mark > facts.quiet_s]
        return min(ahead, default=times.idle) + 0.001

    # Sending.

    async def _send(self, facts: Facts) -> float:
        record = self.record
        if facts.size < record.stream.sent_high:
            await record.drop_beyond(facts.size)
        stream = record.stream
        if self._tools.writer_profiles.waits_for_close(stream.relpath):
            return self._next_look(facts)
        if stream.state in (StreamState.STALE, StreamState.FINALIZING):
            await record.move_to(StreamState.UPLOADING)
        lag = self._tools.writer_profiles.lag_for(stream.relpath)
        ready = list(islice(full_parts(stream.plan, facts.size, lag, record.parts), PARTS_PER_TURN))
        sending = self._tools.uploader.send_full_parts(self.admitted, ready, lag=lag)
        try:
            sent = await self._presence.while_there(sending)
        except DisturbedError:
            sent = 0
        self._plan_next(lag, sent)
        return 0.0 if sent else self._next_look(facts)

    def _plan_next(self, lag: int, sent: int) -> None:
        """The size at which another part is full; growth below it needs no step."""
        stream = self.record.stream
        number = max(self.record.parts, default=1) + 1
        self._next_part_at = stream.plan.range_of(number).end + lag
        if sent:
            self._file.parts_sent()

    # Ending.

    async def _wait_for_data(self) -> float:
        """0 where there is nothing to wait for."""
        complaint = await self._holes.complaint(self._file.stamp)
        if not complaint:
            return 0.0
        if self._file.quiet_s >= HOLES_PATIENCE_S:
            await self.fate.failed(complaint)
        else:
            if self.record.stream.reason != complaint:
                path = self.record.stream.relpath
                log.warning("a finished file is held back", file_path=path, reason=complaint)
            if self.record.stream.state is StreamState.FINALIZING:  # when we were killed
                await self.record.move_to(StreamState.UPLOADING)
            await self.record.move_to(StreamState.STALE, complaint)
        return HOLES_PAUSE_S

    async def _finalize(self, stale: StaleOutcome | None) -> float:
        await self.record.move_to(StreamState.FINALIZING)
        if not self._tools.trusts_ctime:
            await asyncio.to_thread(self.source.refresh)
        try:
            with self._tools.write_guards.hold(self.source.fd, on_broken=self._wake.set) as guard:
                proof = Proof(self._tools.uploader, self.admitted, guard)
                is_unchanged = await self._prove(proof)
        except DisturbedError:
            self._disturbed += 1
            self.observe(await asyncio.to_thread(self.source.look))
            await self.record.move_to(StreamState.UPLOADING)
            return 0.0 if self._file.is_gone else self._tools.times.before_proof
        await (self.fate.unchanged(proof) if is_unchanged else self.fate.stored(proof))
        if stale is not None:
            metrics.stale_outcomes.labels(stale).inc()
        return 0.0

    async def _prove(self, proof: Proof) -> bool:
        """All of it read, and stored, but for a file that is what is stored already: True."""
        former = self.admitted.former
        if proof.stamp != self._file.stamp:
            raise DisturbedError
        await self._presence.while_there(proof.read())
        proof.check()
        await self._settle(proof)
        proof.check()
        if former is not None and proof.is_of_bytes_of(former.stream):
            return True
        if proof.copies:
            await self._presence.while_there(proof.copy())
        await proof.store()
        return False

    async def _settle(self, proof: Proof) -> None:
        """Waits for the rest of the settle time, and no longer than until a writer comes back."""
        needed = 0.0 if self._file.was_at_rest else self._tools.times.settle
        while not self._file.is_gone and (left := needed - self._file.quiet_s) > 0:
            self._wake.clear()
            await comes(self._wake, within_s=left)
            proof.check()
        if self._file.is_gone:
            raise DisturbedError
