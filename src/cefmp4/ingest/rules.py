"""When a part may leave, and when a file is finished or its stream is stale: pure rules, no I/O and
no clock."""

from collections.abc import Container, Iterator
from dataclasses import dataclass
from enum import StrEnum

from cefmp4.model.part import PartPlan, PartRange
from cefmp4.recording.write_guard import WriteGuardState

FIRST_PART_HELD = 1  # nearly every writer patches the head when it closes


class Move(StrEnum):
    SEND = "send"  # parts that are full may leave
    PROVE = "prove"  # read it all, while the settle time passes, and store it
    TRUNCATED = "truncated"  # shorter than what was sent
    GONE = "gone"


class StaleOutcome(StrEnum):
    """What is done with a stream that fell silent for the stream timeout, once what was sent of it
    was compared with the disk."""

    FINALIZE = "finalize"  # all of it is stored: it is proven
    RESUME = "resume"  # less was sent than there is: the rest goes, and it is proven
    TRUNCATED = "truncated"  # more was sent than there is
    MISSING = "missing"
    OVERWRITTEN = "overwritten"  # by other bytes, and fewer


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingTimes:
    """The waiting times, in seconds. The settings say what breaks when they are wrong."""

    settle: float
    unknown_writer: float
    idle: float

    @property
    def before_proof(self) -> float:
        """How quiet a file must be before it is worth reading it all: a program that appends with
        one open and close per chunk would otherwise have it read again for every chunk."""
        return min(self.settle / 4, 0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    size: int
    sent_high: int
    quiet_s: float  # since we saw the last change, or saw it first
    in_place: bool
    writer: WriteGuardState
    saw_close: bool  # a writer closed it since the last change
    was_at_rest: bool = False  # for long before we saw it first, as its change time says
    may_speculate: bool = True  # no proof of it was disturbed so far


def next_move(facts: Facts, times: WaitingTimes) -> Move:
    if not facts.in_place:
        return Move.GONE
    if is_stale(facts, times) or _has_ended(facts, times):
        return Move.TRUNCATED if facts.size < facts.sent_high else Move.PROVE
    return Move.PROVE if _is_worth_proving(facts, times) else Move.SEND


def is_stale(facts: Facts, times: WaitingTimes) -> bool:
    """Also with a writer: a recorder that hangs with its file open must not hide the recording for
    ever. But an empty file with a writer is one that has not begun."""
    has_begun = facts.size > 0 or facts.sent_high > 0 or facts.writer is not WriteGuardState.WRITER
    return facts.quiet_s >= times.idle and has_begun


def _has_ended(facts: Facts, times: WaitingTimes) -> bool:
    """A writer is not only silent, but done."""
    if facts.writer is WriteGuardState.FREE:
        return facts.quiet_s >= times.settle or facts.was_at_rest
    # Clocks may be set: where nobody vouches for it, a change time alone finishes no file.
    is_closed = facts.saw_close or facts.was_at_rest
    is_quiet = facts.quiet_s >= max(times.unknown_writer, times.settle)
    return facts.writer is WriteGuardState.BLIND and is_closed and is_quiet


def judge_stale(facts: Facts, stored_bytes: int) -> StaleOutcome:
    if not facts.in_place:
        return StaleOutcome.MISSING
    if facts.size < facts.sent_high:
        return StaleOutcome.TRUNCATED
    return StaleOutcome.FINALIZE if stored_bytes == facts.size else StaleOutcome.RESUME


def _is_worth_proving(facts: Facts, times: WaitingTimes) -> bool:
    """Before it is surely finished: what was read counts once the settle time has passed."""
    return (
        facts.writer is WriteGuardState.FREE
        and facts.may_speculate
        and facts.size >= facts.sent_high
        and facts.size > 0
        and facts.quiet_s >= times.before_proof
    )


def full_parts(plan: PartPlan, size: int, lag: int, stored: Container[int]) -> Iterator[PartRange]:
    """The parts that the writer has left behind by `lag` bytes and that are not stored yet."""
    number = FIRST_PART_HELD + 1
    while (part := plan.range_of(number)).end + lag <= size:
        if number not in stored:
            yield part
        number += 1
