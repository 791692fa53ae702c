"""When a file is finished, and which parts may leave."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.stream_facts import TIMES, facts

from cefmp4.ingest.rules import (
    Move,
    full_parts,
    next_move,
)
from cefmp4.model.part import MIB, PartPlan
from cefmp4.recording.write_guard import WriteGuardState


@pytest.mark.parametrize(
    ("changes", "move"),
    [
        ({"quiet_s": 0.1}, Move.SEND),
        ({"quiet_s": 1.0}, Move.PROVE),
        ({"quiet_s": 1.0, "may_speculate": False}, Move.SEND),
        ({"quiet_s": 2.0}, Move.PROVE),
        ({"quiet_s": 29.0, "writer": WriteGuardState.WRITER}, Move.SEND),
        ({"quiet_s": 30.0, "writer": WriteGuardState.WRITER}, Move.PROVE),
        ({"quiet_s": 30.0, "writer": WriteGuardState.WRITER, "size": 0}, Move.SEND),
        (
            {"quiet_s": 30.0, "writer": WriteGuardState.WRITER, "size": 0, "sent_high": 9},
            Move.TRUNCATED,
        ),
        ({"quiet_s": 2.0, "size": 0}, Move.PROVE),
        ({"quiet_s": 5.0, "writer": WriteGuardState.BLIND, "saw_close": True}, Move.SEND),
        ({"quiet_s": 10.0, "writer": WriteGuardState.BLIND, "saw_close": True}, Move.PROVE),
        ({"quiet_s": 10.0, "writer": WriteGuardState.BLIND}, Move.SEND),
        ({"quiet_s": 30.0, "writer": WriteGuardState.BLIND}, Move.PROVE),
        ({"was_at_rest": True}, Move.PROVE),
        ({"was_at_rest": True, "quiet_s": 29.0, "writer": WriteGuardState.WRITER}, Move.SEND),
        ({"was_at_rest": True, "quiet_s": 9.0, "writer": WriteGuardState.BLIND}, Move.SEND),
        ({"was_at_rest": True, "quiet_s": 10.0, "writer": WriteGuardState.BLIND}, Move.PROVE),
        ({"quiet_s": 2.0, "sent_high": 101}, Move.TRUNCATED),
        ({"quiet_s": 0.1, "sent_high": 101}, Move.SEND),
        ({"quiet_s": 99.0, "in_place": False}, Move.GONE),
    ],
)
def test_next_move(changes: dict[str, object], move: Move) -> None:
    assert next_move(facts(**changes), TIMES) is move


@given(st.integers(0, 400 * MIB), st.integers(0, 64 * MIB), st.sets(st.integers(1, 50)))
def test_a_part_leaves_only_when_the_writer_is_past_it(
    size: int, lag: int, stored: set[int]
) -> None:
    plan = PartPlan(5 * MIB)
    for part in full_parts(plan, size, lag, stored):
        assert part.end + lag <= size
        assert part.number not in stored
        assert part.number > 1  # the head is held until the writer is done


def test_parts_leave_in_order_without_holes() -> None:
    plan = PartPlan(5 * MIB)
    assert [p.number for p in full_parts(plan, 31 * MIB, 5 * MIB, {3})] == [2, 4, 5]
