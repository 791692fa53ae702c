"""Tests of cefmp4.embedded.swift_filters."""

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from cefmp4.embedded.swift_filters import FULL, DictCache, SpaceGuard, cache, room_bytes
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


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_value_lives_until_its_time() -> None:
    clock = Clock()
    values = DictCache(clock)
    values.set("account", {"count": 1}, time=60)
    assert values.get("account", raise_on_error=True) == {"count": 1}
    clock.now += 60
    assert values.get("account") is None


def test_a_value_without_time_stays() -> None:
    clock = Clock()
    values = DictCache(clock)
    values.set("a", 1)
    clock.now += 1e9
    assert values.get("a") == 1
    values.delete("a")
    values.delete("a")
    assert values.get("a") is None


def test_counts_never_below_zero() -> None:
    values = DictCache()
    assert values.incr("n") == 1
    assert values.incr("n", delta=4) == 5
    assert values.incr("n", delta=-9) == 0


def test_memory_is_bounded() -> None:
    values = DictCache()
    for number in range(50_001):
        values.set(str(number), number)
    assert values.get("0") is None
    assert values.get("50000") == 50_000


def test_the_filter_puts_one_cache_into_every_request() -> None:
    seen: list[object] = []

    def app(environ: dict[str, Any], _start: object) -> list[bytes]:
        seen.append(environ["swift.cache"])
        return []

    filtered = cache({})(app)
    for _ in range(2):
        filtered({}, lambda *_: None)
    assert seen[0] is seen[1]
