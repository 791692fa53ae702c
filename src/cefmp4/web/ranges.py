"""Which bytes of a file a request asks for, and whether it has them already."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

_RANGE = re.compile(r"bytes=(?:(\d{1,19})-(\d{0,19})|-(\d{1,19}))", re.ASCII)
_ETAG = re.compile(r'(?:W/)?("[^"]*")')


@dataclass(frozen=True, slots=True)
class Span:
    """`start` to before `end`."""

    start: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start


class NoSuchRangeError(Exception):
    """Nothing of the file lies in what was asked for."""


def asked_span(headers: Mapping[str, str], size: int, etag: str) -> Span | None:
    """None: the whole file, as for what is no range, or more than one, or of another content."""
    found = _RANGE.fullmatch(headers.get("Range", "").replace(" ", ""))
    if found is None or headers.get("If-Range", etag) != etag:
        return None
    first, last, suffix = found.groups()
    if suffix is not None:
        start, end = max(0, size - int(suffix)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < start:
            return None
    if start >= end:
        raise NoSuchRangeError
    return Span(start, end)


def is_known(headers: Mapping[str, str], etag: str) -> bool:
    """Whether the request names this content as one that it has."""
    known = headers.get("If-None-Match", "")
    return known.strip() == "*" or etag in _ETAG.findall(known)
