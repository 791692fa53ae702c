"""The transition table."""

import pytest

from cefmp4.errors import InvariantError
from cefmp4.model.part import MIB
from cefmp4.model.stream import FINAL_STATES, TRANSITIONS, Stream, StreamState


def make(state: StreamState) -> Stream:
    return Stream(id="s", relpath="r.mp4", part_base=10 * MIB, state=state)


def test_every_state_has_its_row() -> None:
    assert set(TRANSITIONS) == set(StreamState)


@pytest.mark.parametrize("state", list(StreamState))
def test_only_listed_transitions_are_possible(state: StreamState) -> None:
    for target in StreamState:
        stream = make(state)
        if target is state or target in TRANSITIONS[state]:
            assert stream.moved_to(target).state is target
        else:
            with pytest.raises(InvariantError):
                stream.moved_to(target)


def test_what_is_not_proven_yet_can_fail() -> None:
    unfinished = set(StreamState) - FINAL_STATES
    assert all(StreamState.FAILED in TRANSITIONS[state] for state in unfinished)
