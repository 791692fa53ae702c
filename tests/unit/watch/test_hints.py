import pytest

from cefmp4.model.event import EventKind, StreamEvent
from cefmp4.watch.hints import HintBuffer, Put

CREATE, CLOSE, DELETE = EventKind.CREATE, EventKind.CLOSE, EventKind.DELETE


def event(kind: EventKind, relpath: str) -> StreamEvent:
    return StreamEvent(kind=kind, relpath=relpath)


def move(source: str, target: str) -> StreamEvent:
    return StreamEvent(kind=EventKind.MOVE, relpath=target, moved_from=source)


def merged(*events: StreamEvent) -> list[StreamEvent]:
    buffer = HintBuffer(100)
    for each in events:
        buffer.put(each)
    return buffer.drain()


@pytest.mark.parametrize(
    ("kinds", "last"),
    [
        ((CREATE,), CREATE),
        ((CREATE, CLOSE), CLOSE),
        ((CLOSE, CREATE), CLOSE),
        ((CREATE, CLOSE, DELETE), DELETE),
        ((DELETE, CLOSE), DELETE),
        ((DELETE, CREATE), CREATE),
        ((CREATE, CLOSE, DELETE, CREATE, CLOSE), CLOSE),
    ],
)
def test_facts_about_one_name_become_one(kinds: tuple[EventKind, ...], last: EventKind) -> None:
    assert merged(*(event(kind, "a") for kind in kinds)) == [event(last, "a")]


def test_a_chain_of_renames_keeps_its_first_source() -> None:
    assert merged(move("a", "b"), move("b", "c")) == [move("a", "c")]


def test_a_close_travels_with_its_file() -> None:
    assert merged(event(CLOSE, "a"), move("a", "b")) == [move("a", "b"), event(CLOSE, "b")]
    assert merged(move("a", "b"), event(CLOSE, "b")) == [move("a", "b"), event(CLOSE, "b")]


def test_there_and_back_again_is_a_look_at_the_file() -> None:
    assert merged(move("a", "b"), move("b", "a")) == [event(CREATE, "a")]


def test_a_name_is_free_before_it_is_taken_again() -> None:
    assert merged(event(CREATE, "b"), move("b", "c"), move("a", "b")) == [
        move("b", "c"),
        move("a", "b"),
    ]


def test_a_file_that_was_renamed_and_then_overwritten_is_gone() -> None:
    assert merged(move("a", "b"), move("c", "b")) == [event(DELETE, "a"), move("c", "b")]


def test_the_first_put_after_a_drain_says_so() -> None:
    buffer = HintBuffer(10)
    assert buffer.put(event(CREATE, "a")) is Put.FIRST
    assert buffer.put(event(CREATE, "b")) is Put.MORE
    assert len(buffer.drain()) == 2
    assert buffer.drain() == []
    assert buffer.put(event(CREATE, "c")) is Put.FIRST


def test_a_full_buffer_drops_everything_and_says_so() -> None:
    buffer = HintBuffer(2)
    buffer.put(event(CREATE, "a"))
    buffer.put(event(CREATE, "b"))
    assert buffer.put(event(CLOSE, "b")) is Put.MORE
    assert buffer.put(event(CREATE, "c")) is Put.DROPPED
    assert buffer.drain() == []
