"""Reads ffprobe's answers, which come from foreign bytes: any field may be missing, absurd or of
another type, and none of that is an error. Pure."""

import math
from fractions import Fraction
from typing import Any

_MAX_TEXT = 64
_UNKNOWN = "unknown"
_NEVER_KNOWN = frozenset({"apac"})
_HDR = {"smpte2084": "PQ", "arib-std-b67": "HLG"}


def table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def tables(value: object) -> list[dict[str, Any]]:
    return [table(row) for row in value] if isinstance(value, list) else []


def text(value: object) -> str:
    if not isinstance(value, str):
        return ""
    return "".join(
        char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in value[:_MAX_TEXT]
    )


def number(value: object) -> float | None:
    try:
        found = float(str(value))
    except ValueError:
        return None
    return found if math.isfinite(found) and abs(found) < 1e12 else None


def count(value: object) -> int:
    """0 where there is none."""
    found = number(value)
    return int(found) if found is not None and found > 0 else 0


def ratio(value: object, sign: str = "/") -> Fraction | None:
    above, _, below = text(value).partition(sign)
    try:
        found = Fraction(int(above), int(below or 1))
    except (ValueError, ZeroDivisionError):
        return None
    return found if found > 0 else None


def has_codec(stream: dict[str, Any]) -> bool:
    """Whether ffprobe has a name for it. Apple's spatial sound is never the AAC that a record left
    beside it claims."""
    is_named = text(stream.get("codec_name")) not in ("", _UNKNOWN)
    return is_named and text(stream.get("codec_tag_string")) not in _NEVER_KNOWN


def codec_name(stream: dict[str, Any]) -> str:
    """What ffprobe has no name for is called as the file calls it."""
    if has_codec(stream):
        return text(stream.get("codec_name"))
    tag = text(stream.get("codec_tag_string"))
    return tag if tag.isalnum() else _UNKNOWN


def hdr(stream: dict[str, Any]) -> str | None:
    return _HDR.get(text(stream.get("color_transfer")))


def rotation(stream: dict[str, Any]) -> int | None:
    """Degrees clockwise to turn the picture for showing: 0, 90, 180 or 270."""
    for entry in tables(stream.get("side_data_list")):
        # The display matrix counts counter-clockwise.
        if (degrees := number(entry.get("rotation"))) is not None:
            return round(-degrees / 90) * 90 % 360
    return None
