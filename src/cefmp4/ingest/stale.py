"""The stale-stream checker: what was sent of a stream that fell silent for the stream timeout is
compared with the disk, and what that says is done."""

from enum import StrEnum

from cefmp4.ingest.rules import Facts, Move, WaitingTimes, Writer


class StaleOutcome(StrEnum):
    """What is done with it."""

    FINALIZE = "finalize"  # all of it is stored: it is proven
    RESUME = "resume"  # less was sent than there is: the rest goes, and it is proven
    TRUNCATED = "truncated"  # more was sent than there is
    MISSING = "missing"
    OVERWRITTEN = "overwritten"  # by other bytes, and fewer


MOVES = {
    StaleOutcome.FINALIZE: Move.FINALIZE,
    StaleOutcome.RESUME: Move.FINALIZE,
    StaleOutcome.TRUNCATED: Move.TRUNCATED,
    StaleOutcome.MISSING: Move.GONE,
}


def is_stale(facts: Facts, times: WaitingTimes) -> bool:
    """Also with a writer: a recorder that hangs with its file open must not hide the recording for
    ever. But an empty file with a writer is one that has not begun."""
    has_begun = facts.size > 0 or facts.sent_high > 0 or facts.writer is not Writer.PRESENT
    return facts.quiet_s >= times.idle and has_begun


def judge_stale(facts: Facts, stored_bytes: int) -> StaleOutcome:
    if not facts.in_place:
        return StaleOutcome.MISSING
    if facts.size < facts.sent_high:
        return StaleOutcome.TRUNCATED
    return StaleOutcome.FINALIZE if stored_bytes == facts.size else StaleOutcome.RESUME
