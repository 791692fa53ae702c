"""Who waits for being looked into, in which order, and when a path is looked at again."""

from pathlib import Path

from cefmp4.ingest.waiting_room import (
    COMEBACK,
    GLANCES_PER_BEAT,
    Comebacks,
    WaitingRoom,
    glance,
)


def emptied(room: WaitingRoom, *, may_be_backlog: bool = True) -> list[str]:
    taken = []
    while (each := room.take_next(may_be_backlog=may_be_backlog)) is not None:
        taken.append(each[0])
    return taken


def test_what_grows_goes_before_what_came_earlier() -> None:
    room = WaitingRoom()
    room.put("a/old", is_growing=False)
    room.put("a/now", is_growing=True)
    assert room.first() == "a/now"
    assert emptied(room) == ["a/now", "a/old"]


def test_the_backlog_can_be_left_waiting() -> None:
    room = WaitingRoom()
    room.put("old", is_growing=False)
    room.put("now", is_growing=True)
    assert emptied(room, may_be_backlog=False) == ["now"]
    assert "old" in room


def test_a_writer_that_closes_makes_it_backlog() -> None:
    room = WaitingRoom()
    room.put("r", is_growing=True)
    room.put("r", is_growing=False)
    assert "r" not in room.growing
    assert len(room) == 1


def test_what_grows_while_it_waits_is_found(tmp_path: Path) -> None:
    room, path = WaitingRoom(), tmp_path / "r"
    for number in range(3):
        room.put(f"gone{number}", is_growing=False, size=1)
    path.write_bytes(b"1")
    room.put("r", is_growing=False, size=1)
    room.note(glance(str(tmp_path), room.next_to_glance_at()))
    assert "r" not in room.growing
    path.write_bytes(b"123")
    room.note(glance(str(tmp_path), room.next_to_glance_at()))
    assert room.first() == "r"
    assert "r" in room.growing


def test_all_are_glanced_at_in_turn_the_newest_first() -> None:
    room, names = WaitingRoom(), [f"{number}" for number in range(GLANCES_PER_BEAT + 2)]
    for name in names:
        room.put(name, is_growing=False)
    assert sorted(room.next_to_glance_at()) == sorted(names[2:])
    assert room.next_to_glance_at() == names[:2]
    assert len(room.next_to_glance_at()) == GLANCES_PER_BEAT


def test_who_leaves_is_forgotten() -> None:
    room = WaitingRoom()
    room.put("r", is_growing=False, size=1)
    room.next_to_glance_at()
    room.discard("r")
    room.note([("r", 2)])
    assert room.first() is None
    assert emptied(room) == []


def test_one_is_due_until_it_began_and_then_waits_for_its_next_failure() -> None:
    comebacks = Comebacks()
    comebacks.put("r.mp4", 100.0, is_growing=False, pause_s=5.0)
    assert comebacks.due(104.9) == []
    assert comebacks.due(105.0) == comebacks.due(105.0) == [("r.mp4", False)]
    comebacks.began("r.mp4")
    assert comebacks.due(1e9) == []
    assert "r.mp4" in comebacks
    comebacks.discard("r.mp4")
    assert "r.mp4" not in comebacks


def test_who_fails_again_and_again_comes_later_and_no_later_than_the_cap() -> None:
    comebacks, now = Comebacks(), 0.0
    for _ in range(20):
        comebacks.put("r.mp4", now, is_growing=True)
        assert comebacks.due(now + COMEBACK.cap_s * 2)
        comebacks.began("r.mp4")
    comebacks.put("r.mp4", now, is_growing=True)
    assert not comebacks.due(now + COMEBACK.first_s / 4)
