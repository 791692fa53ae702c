"""What a request for a part of a file means."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cefmp4.web.questions import asked_range, is_known

ETAG = '"abc"'


def asked(text: str, size: int = 100, **headers: str) -> range | None:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return asked_range({"Range": text, **named}, size, ETAG)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("bytes=0-0", range(0, 1)),
        ("bytes=0-", range(0, 100)),
        ("bytes=10-19", range(10, 20)),
        ("bytes=99-", range(99, 100)),
        ("bytes=90-1000", range(90, 100)),
        ("bytes=-1", range(99, 100)),
        ("bytes=-1000", range(0, 100)),
        ("bytes= 10 - 19", range(10, 20)),
    ],
)
def test_a_part(text: str, found: range) -> None:
    assert asked(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bytes=",
        "bytes=-",
        "bytes=5-4",
        "bytes=0-1,5-6",
        "items=0-1",
        "bytes=a-b",
        "bytes=²-",
        "bytes=0x1-2",
        "bytes=1-2-3",
        "bytes=" + "9" * 5000 + "-",
    ],
)
def test_what_is_no_part_means_the_whole(text: str) -> None:
    assert asked(text) is None


@pytest.mark.parametrize("text", ["bytes=100-", "bytes=100-200", "bytes=-0", "bytes=999999-"])
def test_a_part_that_does_not_exist(text: str) -> None:
    assert asked(text) is not None
    assert not asked(text)


def test_of_an_empty_file_there_is_no_part() -> None:
    assert asked("bytes=0-", size=0) == range(0)
    assert asked("", size=0) is None


def test_a_part_of_another_content_means_the_whole_of_this() -> None:
    assert asked("bytes=0-1", If_Range=ETAG) == range(0, 2)
    assert asked("bytes=0-1", If_Range='"other"') is None
    assert asked("bytes=0-1", If_Range="Wed, 21 Oct 2026 07:28:00 GMT") is None


@given(st.text(), st.integers(0, 2**40))
def test_any_text_is_read(text: str, size: int) -> None:
    for spelled in (text, f"bytes={text}"):
        found = asked(spelled, size)
        assert not found or 0 <= found.start < found.stop <= size


@pytest.mark.parametrize(
    ("known", "is_so"),
    [
        (ETAG, True),
        (f"W/{ETAG}", True),
        (f'"x", {ETAG}', True),
        ("*", True),
        ('"x"', False),
        ("", False),
        ("abc", False),
    ],
)
def test_what_a_browser_has_already(known: str, is_so: bool) -> None:
    assert is_known({"If-None-Match": known} if known else {}, ETAG) is is_so
