"""Which StreamEvents become of what the kernel tells, and when."""

from pathlib import Path

import pytest

from cefmp4.model.event import EventKind, StreamEvent
from cefmp4.watch import inotify_calls as kernel
from cefmp4.watch.selection import Selection
from cefmp4.watch.translator import PAIRING_S, Translator


class Told:
    """A translator, and what it passed on."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.events: list[StreamEvent] = []
        selection = Selection(("*.mp4",))
        self.translator = Translator(str(root), selection, self.events.append)

    def take(self, mask: int, name: str, *, cookie: int = 0, now: float = 0.0) -> None:
        event = kernel.RawEvent(watch=1, mask=mask, cookie=cookie, name=name)
        self.translator.take(event, name, now)

    def short(self) -> list[tuple[str, str]]:
        return [(str(event.kind), event.relpath) for event in self.events]


@pytest.fixture
def told(tmp_path: Path) -> Told:
    for name in ("a.mp4", "b.mp4", "a.txt"):
        (tmp_path / name).write_bytes(b"x")
    return Told(tmp_path)


def test_what_is_made_closed_and_removed(told: Told) -> None:
    for mask in (kernel.IN_CREATE, kernel.IN_CLOSE_WRITE, kernel.IN_DELETE):
        told.take(mask, "a.mp4")
        told.take(mask, "a.txt")
    assert told.short() == [("create", "a.mp4"), ("close", "a.mp4"), ("delete", "a.mp4")]


def test_the_two_halves_of_a_rename_are_one_event(told: Told) -> None:
    told.take(kernel.IN_MOVED_FROM, "old.mp4", cookie=7)
    assert told.events == []
    assert told.translator.next_at == PAIRING_S
    told.take(kernel.IN_MOVED_TO, "a.mp4", cookie=7)
    (event,) = told.events
    assert event == StreamEvent(kind=EventKind.MOVE, relpath="a.mp4", moved_from="old.mp4")
    assert told.translator.next_at == float("inf")


@pytest.mark.parametrize(
    ("source", "target", "told_of"),
    [
        ("a.mp4.part", "a.mp4", [("create", "a.mp4")]),
        ("a.mp4", "a.txt", [("delete", "a.mp4")]),
        ("b.txt", "a.txt", []),
    ],
)
def test_a_rename_to_or_from_what_nobody_wants(
    told: Told, source: str, target: str, told_of: list[tuple[str, str]]
) -> None:
    told.take(kernel.IN_MOVED_FROM, source, cookie=7)
    told.take(kernel.IN_MOVED_TO, target, cookie=7)
    assert told.short() == told_of


def test_what_is_renamed_to_the_outside_is_gone_when_no_second_half_comes(told: Told) -> None:
    told.take(kernel.IN_MOVED_FROM, "old.mp4", cookie=7, now=10.0)
    told.take(kernel.IN_MOVED_FROM, "older.mp4", cookie=8, now=10.2)
    told.translator.expire(10.0 + PAIRING_S - 0.01)
    assert told.events == []
    told.translator.expire(10.0 + PAIRING_S)
    assert told.short() == [("delete", "old.mp4")]
    assert told.translator.next_at == 10.2 + PAIRING_S


def test_that_a_name_went_comes_before_what_takes_it(told: Told) -> None:
    told.take(kernel.IN_MOVED_FROM, "a.mp4", cookie=7)
    told.take(kernel.IN_CREATE, "a.mp4")
    assert told.short() == [("delete", "a.mp4"), ("create", "a.mp4")]
    told.take(kernel.IN_MOVED_TO, "b.mp4", cookie=7)  # too late to be one event
    assert told.short()[2:] == [("create", "b.mp4")]


def test_a_file_from_outside_is_new(told: Told) -> None:
    told.take(kernel.IN_MOVED_TO, "a.mp4", cookie=7)
    assert told.short() == [("create", "a.mp4")]


def test_the_end_of_a_control_file_is_the_end_of_its_download(told: Told) -> None:
    control = told.root / "a.mp4.aria2"
    control.write_bytes(b"x")
    told.take(kernel.IN_CREATE, "a.mp4")
    assert told.events == []
    control.unlink()
    told.take(kernel.IN_DELETE, "a.mp4.aria2")
    assert told.short() == [("close", "a.mp4")]


def test_what_is_no_file_is_left_out(told: Told) -> None:
    (told.root / "link.mp4").symlink_to("a.mp4")
    (told.root / "folder.mp4").mkdir()
    for name in ("link.mp4", "folder.mp4", "gone again.mp4"):
        told.take(kernel.IN_CREATE, name)
    assert told.short() == [("create", "gone again.mp4")]
