"""Walks over the boxes of an MP4, in memory or in an open file, of which it reads no more than the
headers. Pure but for that."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cefmp4.errors import CefError

Read = Callable[[int, int], bytes | memoryview]  # from where, and how much at most
_HEADER_BYTES = 16
_LONG = b"\0\0\0\1"  # the length follows the kind


class BrokenMediaError(CefError):
    """The bytes are not the fragmented MP4 that was asked for."""


@dataclass(frozen=True, slots=True)
class Box:
    """`start`, `end`: of its content; it may say that it ends where nothing is any more."""

    kind: bytes
    start: int
    end: int


def in_file(fd: int) -> Read:
    """Its position neither matters nor changes."""
    return lambda at, size: os.pread(fd, size, at)


def boxes(read: Read, start: int, end: int) -> Iterator[Box]:
    """One after the other, up to what is no box."""
    while start < end and (box := box_at(read(start, _HEADER_BYTES), start, end)):
        yield box
        start = box.end


def box_at(header: bytes | bytearray | memoryview, start: int, end: int) -> Box | None:
    """The one that begins with `header` at `start`; without a length of its own, up to `end`."""
    length, kind = int.from_bytes(header[:4], "big"), bytes(header[4:8])
    content = start + 8
    if length == 1:
        length, content = int.from_bytes(header[8:16], "big"), start + 16
    elif length == 0:
        length = end - start
    if len(kind) < 4 or start + length < content:
        return None
    return Box(kind, content, start + length)


def is_cut(header: bytes | bytearray) -> bool:
    """Whether more of it must be known to tell the length."""
    return len(header) < 8 or (len(header) < _HEADER_BYTES and header.startswith(_LONG))


def children(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Kind and content of all that is in `data`. Raises BrokenMediaError where it is not boxes."""
    end = 0
    for box in boxes(lambda at, size: data[at : at + size], 0, len(data)):
        if box.end > len(data):
            raise BrokenMediaError(f"a box that ends at {box.end} of {len(data)} does not fit")
        yield box.kind, data[box.start : box.end]
        end = box.end
    if end < len(data):
        raise BrokenMediaError("a box is cut off")


def child(data: memoryview, *path: bytes) -> memoryview:
    """The content of the first box at that path."""
    for name in path:
        data = next((content for kind, content in children(data) if kind == name), memoryview(b""))
        if not data:
            told = b"/".join(path).decode("latin-1")
            raise BrokenMediaError(f"there is no {told} box")
    return data
