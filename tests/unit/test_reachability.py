"""An outage is two lines, whoever meets it; nobody's ids are in them. What is refused is told until
the same is allowed."""

import logging
from collections.abc import Iterator

import pytest
import structlog
from structlog.testing import capture_logs

from cefmp4 import metrics
from cefmp4.errors import AccessDeniedError, ServerUnreachableError, ThrottledError
from cefmp4.reachability import SETTLED_S, Reachability, level_of, tell_of_outages

SILENT = ServerUnreachableError("no answer")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def _telling(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(Reachability, "is_told", True)
    yield
    metrics.server_up.remove("test")


def reachability() -> tuple[Reachability, Clock]:
    clock = Clock()
    return Reachability("Test", clock=clock), clock


def test_an_outage_is_two_lines() -> None:
    server, clock = reachability()
    with capture_logs() as lines:
        server.answered()
        for _ in range(41):
            server.failed(SILENT)
            clock.now += 1
        clock.now += SETTLED_S
        for _ in range(3):
            server.answered()
    assert [line["event"] for line in lines] == [
        "Test does not answer: uploads and jobs wait",
        "Test answers again after 40 s",
    ]


def test_an_answer_among_failures_ends_nothing() -> None:
    """Its disk is full: it is read, and refuses to be written to."""
    server, clock = reachability()
    with capture_logs() as lines:
        for _ in range(20):
            server.failed(SILENT)
            assert server.troubles == ["Test does not answer"]
            server.answered()
            assert server.troubles == []
            clock.now += SETTLED_S / 2
    assert len(lines) == 1


def test_a_bad_answer_is_no_silence() -> None:
    server, _ = reachability()
    with capture_logs() as lines:
        server.failed(ThrottledError("slow down"))
    assert lines == []
    assert server.troubles == ["Test does not answer"]
    assert level_of(ThrottledError("slow down")) == logging.WARNING


def test_the_ids_of_whoever_noticed_it_are_not_in_it() -> None:
    server, _ = reachability()
    bound = structlog.contextvars.merge_contextvars
    with (
        structlog.contextvars.bound_contextvars(stream_id="a"),
        capture_logs(processors=[bound]) as lines,
    ):
        server.failed(SILENT)
    assert "stream_id" not in lines[0]


def test_a_command_says_by_itself_what_went_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reachability, "is_told", False)
    server, _ = reachability()
    with capture_logs() as lines:
        server.failed(SILENT)
    assert lines == []
    assert level_of(SILENT) == logging.WARNING
    tell_of_outages()
    assert level_of(SILENT) == logging.DEBUG


def test_each_operation_is_a_right_of_its_own() -> None:
    server, _ = reachability()
    server.allowed("PutObject")
    assert server.troubles == []
    server.refused("PutObject", AccessDeniedError("status 403", hint="not told"))
    server.refused("UploadPart", AccessDeniedError("status 401"))
    assert server.troubles == ["Test refuses us: status 403", "Test refuses us: status 401"]
    server.allowed("PutObject")
    assert server.troubles == ["Test refuses us: status 401"]
