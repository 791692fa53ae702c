"""Tests of cefmp4.embedded.swift_space."""

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from cefmp4.embedded.swift_space import FULL, SpaceGuard, room_bytes
from cefmp4.storage.s3.errors import refusal_from_reply

PART = {
    "REQUEST_METHOD": "PUT",
    "PATH_INFO": "/bucket/a/b.mp4",
    "CONTENT_LENGTH": "100",
    "QUERY_STRING": "partNumber=1&uploadId=u",
}


class Swift:
    def __init__(self, status: str, on_call: Callable[[], None] = lambda: None) -> None:
        self.status = status
        self.calls = 0
        self._on_call = on_call

    def __call__(self, _environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        self.calls += 1
        self._on_call()
        start(self.status, [("Content-Type", "text/plain")])
        return [b"said by Swift"]


class Disk:
    def __init__(self, room: int) -> None:
        self.room = room

    def __call__(self) -> int:
        return self.room

    def use(self) -> None:
        self.room = 0


def ask(guard: SpaceGuard, environ: dict[str, Any]) -> tuple[str, bytes]:
    told: list[str] = []
    body = b"".join(guard(environ, lambda status, *_: told.append(status)))
    (status,) = told
    return status, body


def test_what_does_not_fit_is_refused_before_it_is_sent() -> None:
    swift = Swift("200 OK")
    status, body = ask(SpaceGuard(swift, Disk(99)), dict(PART))
    assert (status, swift.calls) == (FULL, 0)
    refusal = refusal_from_reply("UploadPart", 507, {}, body)
    assert refusal.code == "InsufficientStorage"
    assert "no space is left on the disk" in refusal.message


def test_what_fits_is_let_through() -> None:
    assert ask(SpaceGuard(Swift("200 OK"), Disk(100)), dict(PART)) == ("200 OK", b"said by Swift")


def test_a_disk_that_gets_full_meanwhile_is_told_of() -> None:
    disk = Disk(100)
    assert ask(SpaceGuard(Swift("503 Busy", disk.use), disk), dict(PART))[0] == FULL


def test_other_failures_stay_what_they_are() -> None:
    assert ask(SpaceGuard(Swift("503 Busy"), Disk(100)), dict(PART))[0] == "503 Busy"
    disk = Disk(100)
    assert ask(SpaceGuard(Swift("403 No", disk.use), disk), dict(PART))[0] == "403 No"


@pytest.mark.parametrize(
    ("method", "query", "passes"),
    [
        ("DELETE", "", True),
        ("DELETE", "uploadId=u", True),
        ("POST", "delete", True),
        ("POST", "uploadId=u", True),
        ("GET", "", True),
        ("HEAD", "", True),
        ("POST", "uploads", False),
        ("POST", "uploads=", False),
        ("PUT", "", False),
    ],
)
def test_a_full_disk_can_be_read_and_freed(method: str, query: str, passes: bool) -> None:
    environ = {"REQUEST_METHOD": method, "PATH_INFO": "/bucket/a", "QUERY_STRING": query}
    status, _ = ask(SpaceGuard(Swift("200 OK"), Disk(-1)), environ)
    assert status == ("200 OK" if passes else FULL)


def test_a_start_on_a_full_disk_finds_its_bucket() -> None:
    environ = {"REQUEST_METHOD": "PUT", "PATH_INFO": "/bucket"}
    assert ask(SpaceGuard(Swift("200 OK"), Disk(-1)), environ)[0] == "200 OK"


def test_the_reserve_is_a_small_share_of_a_small_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "devices").mkdir()
    monkeypatch.chdir(tmp_path)
    assert room_bytes() < shutil.disk_usage(tmp_path).free
