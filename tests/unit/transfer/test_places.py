"""A key never leads out of the folder, a name never to a key that is not its own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cefmp4.errors import RefusedError
from cefmp4.transfer.places import LONGEST_KEY, is_key, key_of, path_below

NAMES = st.lists(
    st.sampled_from(["", ".", "..", "a", "b\0", "\x1b[31m", "ü", "..."]), min_size=1, max_size=6
)


@pytest.mark.parametrize(
    ("key", "prefix", "path"),
    [
        ("a/b/c.mp4", None, "c.mp4"),
        ("c.mp4", None, "c.mp4"),
        ("../../c.mp4", None, "c.mp4"),
        ("a/b/c.mp4", "a/", "b/c.mp4"),
        ("a/b/c.mp4", "", "a/b/c.mp4"),
        ("a/a/c.mp4", "a/", "a/c.mp4"),
    ],
)
def test_where_an_object_goes(key: str, prefix: str | None, path: str) -> None:
    assert path_below(key, prefix) == path


@pytest.mark.parametrize(
    ("key", "prefix"),
    [
        ("a/..", None),
        ("a/.", None),
        ("a/b\0c", None),
        ("a/../../c", "a/"),
        ("a//etc/passwd", "a/"),
        ("/etc/passwd", ""),
        ("a/./c", "a/"),
        ("a/c/", "a/"),
    ],
)
def test_what_would_leave_the_folder_is_refused(key: str, prefix: str | None) -> None:
    with pytest.raises(RefusedError):
        path_below(key, prefix)


@given(NAMES, st.sampled_from([None, "", "a/"]))
def test_whatever_is_let_through_stays_below(names: list[str], prefix: str | None) -> None:
    key = "/".join(names)
    try:
        path = path_below(key, prefix)
    except RefusedError:
        return
    assert "\0" not in path
    assert not {"", ".", ".."} & set(path.split("/"))


@pytest.mark.parametrize(
    ("relpath", "prefix", "key"),
    [
        ("a.mp4", "", "a.mp4"),
        ("a.mp4", "in", "in/a.mp4"),
        ("a.mp4", "in/", "in/a.mp4"),
        ("a/b.mp4", "in/2026/", "in/2026/a/b.mp4"),
        ("a\n\udcff.mp4", "", "a%0A%FF.mp4"),
    ],
)
def test_the_key_of_a_file(relpath: str, prefix: str, key: str) -> None:
    assert key_of(relpath, prefix) == key


@pytest.mark.parametrize(
    ("relpath", "prefix"),
    [
        ("master.m3u8", "hls/20260101T000000Z-0badcafe"),
        ("a.mp4.metadata.json", ""),
        ("a" * (LONGEST_KEY + 1), ""),
        ("a.mp4", "in/../hls"),
        ("a.mp4", "in//b"),
    ],
)
def test_keys_that_no_file_gets(relpath: str, prefix: str) -> None:
    with pytest.raises(RefusedError):
        key_of(relpath, prefix)


def test_what_can_be_a_key() -> None:
    assert is_key("a")
    assert is_key("/")
    assert not is_key("")
    assert not is_key("\udcff")
    assert not is_key("ü" * LONGEST_KEY)
