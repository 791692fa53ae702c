"""The walk over boxes: whatever stands in front of them, it ends and stays within what there is."""

import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cefmp4.media.mp4_boxes import (
    Box,
    BrokenMediaError,
    Read,
    box_at,
    boxes,
    child,
    children,
    in_file,
    is_cut,
)


def box(kind: bytes, content: bytes = b"", *, is_long: bool = False) -> bytes:
    if is_long:
        return struct.pack(">I4sQ", 1, kind, 16 + len(content)) + content
    return struct.pack(">I4s", 8 + len(content), kind) + content


def in_memory(data: bytes) -> Read:
    return lambda at, size: data[at : at + size]


def test_boxes_of_every_length() -> None:
    data = box(b"ftyp", b"isom") + box(b"mdat", b"12345", is_long=True) + b"\0\0\0\0free1234"
    assert list(boxes(in_memory(data), 0, len(data))) == [
        Box(b"ftyp", 8, 12),
        Box(b"mdat", 28, 33),
        Box(b"free", 41, 45),
    ]


def test_a_box_may_end_behind_everything() -> None:
    data = struct.pack(">I4sQ", 1, b"mdat", 2**64 - 1) + bytes(8)
    assert [found.end for found in boxes(in_memory(data), 0, len(data))] == [2**64 - 1]


@pytest.mark.parametrize(
    "data", [b"", b"\0\0", b"\0\0\0\x07free", struct.pack(">I4sQ", 1, b"mdat", 15)]
)
def test_what_is_no_box(data: bytes) -> None:
    assert list(boxes(in_memory(data), 0, len(data))) == []


def test_a_file_is_read_by_its_headers_alone(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(box(b"mdat", bytes(100_000)) + box(b"moov"))
    asked = []
    with (tmp_path / "x").open("rb") as file:
        read = in_file(file.fileno())

        def counted(at: int, size: int) -> bytes | memoryview:
            asked.append(size)
            return read(at, size)

        size = os.fstat(file.fileno()).st_size
        assert [found.kind for found in boxes(counted, 0, size)] == [b"mdat", b"moov"]
        assert file.tell() == 0
    assert sum(asked) == 32


def test_a_header_that_comes_in_pieces() -> None:
    assert is_cut(b"\0\0\0\x10mda")
    assert is_cut(b"\0\0\0\1mdat\0\0\0\0")
    assert not is_cut(b"\0\0\0\x10mdat")


def test_children_by_their_path() -> None:
    data = memoryview(box(b"moov", box(b"free") + box(b"trak", box(b"mdia", b"content"))))
    assert bytes(child(data, b"moov", b"trak", b"mdia")) == b"content"
    with pytest.raises(BrokenMediaError, match="no moov/trak/stbl box"):
        child(data, b"moov", b"trak", b"stbl")


@pytest.mark.parametrize(
    "data", [box(b"free") + b"\0", box(b"mdat", b"1234")[:-1], b"\0\0\0\2free"]
)
def test_children_are_nothing_but_whole_boxes(data: bytes) -> None:
    with pytest.raises(BrokenMediaError):
        list(children(memoryview(data)))


@given(st.binary(max_size=80))
def test_any_bytes(data: bytes) -> None:
    ends = [found.end for found in boxes(in_memory(data), 0, len(data))]
    assert ends == sorted(set(ends))
    found = box_at(data[:16], 0, len(data))
    assert found is None or found.start <= found.end
