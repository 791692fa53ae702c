"""A flood of like lines is some lines and a count; nothing else is lost in it."""

import logging
from collections import Counter
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from cefmp4.log_flood import (
    FOLDERS,
    KINDS,
    LEFT_OUT,
    LINES_A_FOLDER,
    LINES_A_KIND,
    WINDOW_S,
    FloodGate,
)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gate(clock: Clock) -> Iterator[FloodGate]:
    gate = FloodGate(clock)
    yield gate
    with capture_logs():
        gate.flush()  # ends its timer


def line(event: str, path: str = "", level: int = logging.INFO) -> logging.LogRecord:
    record = logging.LogRecord("cefmp4", level, "", 0, "", (), None)
    record.msg = {"event": event, **({"file_path": path} if path else {})}
    return record


def passed(gate: FloodGate, records: list[logging.LogRecord]) -> Counter[str]:
    return Counter(str(one.msg["event"]) for one in records if gate.filter(one))  # type: ignore[index]


def test_a_million_renames_are_some_lines_and_a_count(gate: FloodGate, clock: Clock) -> None:
    with capture_logs() as logs:
        for number in range(100_000):
            gate.filter(line("renamed", f"evil/{number}.mp4"))
        assert logs == []
        clock.now = WINDOW_S
        assert gate.filter(line("something else"))
    assert [(one["event"], one["kind"], one["count"], one["most_in"]) for one in logs] == [
        (LEFT_OUT, "renamed", 100_000 - LINES_A_FOLDER, "evil")
    ]
    assert logs[0]["log_level"] == "info"


def test_neither_other_kinds_nor_other_folders_lose_a_line(gate: FloodGate) -> None:
    flood = [line("renamed", f"evil/{number}/a.mp4") for number in range(5000)]
    passed(gate, flood)
    normal = [line(event, "cam/a.mp4") for event in ("renamed", "stream begins", "stored")]
    assert passed(gate, normal) == {"renamed": 1, "stream begins": 1, "stored": 1}
    assert passed(
        gate, [line("renamed", "b.mp4"), line("failed", "evil/x.mp4", logging.ERROR)]
    ) == {
        "renamed": 1,
        "failed": 1,
    }


def test_folders_and_kinds_without_number_are_bounded_too(gate: FloodGate) -> None:
    everywhere = [line("renamed", f"{n}/{m}.mp4") for m in range(60) for n in range(400)]
    assert passed(gate, everywhere).total() <= LINES_A_KIND + FOLDERS + 1
    names = [line(f"event {number}") for number in range(5000)]
    assert passed(gate, names).total() <= KINDS + LINES_A_FOLDER
    assert len(gate._windows) <= KINDS + 1


def test_lines_of_libraries_pass_it_too(gate: FloodGate) -> None:
    def of(name: str) -> logging.LogRecord:
        return logging.LogRecord(name, logging.WARNING, "", 0, "lost %s", ("x",), None)

    assert sum(gate.filter(of("botocore")) for _ in range(500)) == LINES_A_FOLDER
    assert gate.filter(of("redis"))


def test_the_end_of_a_flood_is_told_at_the_end_of_the_process(gate: FloodGate) -> None:
    for _ in range(LINES_A_FOLDER + 7):
        gate.filter(line("trouble", level=logging.ERROR))
    with capture_logs() as logs:
        gate.flush()
        gate.flush()
    assert [(one["count"], one["log_level"]) for one in logs] == [(7, "error")]


def test_the_end_of_a_flood_is_told_though_nobody_says_anything_more(
    gate: FloodGate, clock: Clock
) -> None:
    for _ in range(LINES_A_FOLDER + 1):
        gate.filter(line("trouble"))
    assert gate._timer is not None
    clock.now = WINDOW_S
    with capture_logs() as logs:
        gate._on_timer()
    assert [one["count"] for one in logs] == [1]
