"""When a part may leave and when a file is finished: pure rules, no I/O and no clock."""

from collections.abc import Container, Iterator
from dataclasses import dataclass
from enum import StrEnum

from cefmp4.model.part import PartPlan, PartRange

FIRST_PART_HELD = 1  # nearly every writer patches the head when it closes


class Writer(StrEnum):
    """What the kernel says about writers of a file."""

    NONE = "none"  # nobody has it open for writing
    PRESENT = "present"
    UNKNOWN = "unknown"  # this file system or our rights do not allow an answer


class Move(StrEnum):
    SEND = "send"  # parts that are full may leave
    PROVE = "prove"  # read it all again while the settle time passes
    FINALIZE = "finalize"
    TRUNCATED = "truncated"  # shorter than what was sent
    GONE = "gone"


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
    writer: Writer
    saw_close: bool  # a writer closed it since the last change
    was_at_rest: bool = False  # for long before we saw it first, as its change time says
    may_speculate: bool = True  # no proof of it was disturbed so far


def next_move(facts: Facts, times: WaitingTimes) -> Move:
    if not facts.in_place:
        return Move.GONE
    if _is_finished(facts, times):
        return Move.TRUNCATED if facts.size < facts.sent_high else Move.FINALIZE
    if _is_worth_proving(facts, times):
        return Move.PROVE
    return Move.SEND


def _is_finished(facts: Facts, times: WaitingTimes) -> bool:
    if facts.writer is Writer.NONE:
        return facts.quiet_s >= times.settle or facts.was_at_rest
    if facts.writer is Writer.PRESENT:
        # A recorder that hangs with its file open must not hide the recording for ever; but an
        # empty file with a writer is one that has not begun.
        return facts.quiet_s >= times.idle and facts.size > 0
    # Clocks may be set: where nobody vouches for it, a change time alone finishes no file.
    is_closed = facts.saw_close or facts.was_at_rest
    needed = times.unknown_writer if is_closed else times.idle
    return facts.quiet_s >= max(needed, times.settle)


def _is_worth_proving(facts: Facts, times: WaitingTimes) -> bool:
    return (
        facts.writer is Writer.NONE
        and facts.may_speculate
        and facts.size >= facts.sent_high
        and facts.size > 0
        and facts.quiet_s >= times.before_proof
    )


def full_parts(
    plan: PartPlan, size: int, lag: int, stored: Container[int], after: int = FIRST_PART_HELD
) -> Iterator[PartRange]:
    """The parts that the writer has left behind by `lag` bytes and that are not stored yet."""
    number = after + 1
    while (part := plan.range_of(number)).end + lag <= size:
        if number not in stored:
            yield part
        number += 1
