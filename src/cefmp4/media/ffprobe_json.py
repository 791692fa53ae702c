"""Reads ffprobe's answers, which come from foreign bytes: any field may be missing, absurd or of
another type, and none of that is an error."""

import math
from fractions import Fraction
from typing import Any


def table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def rows(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def text(value: object) -> str:
    return value[:64] if isinstance(value, str) else ""


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


def hdr10(document: dict[str, Any]) -> tuple[str, str]:
    mastering, light = "", ""
    frames = [table(frame) for frame in rows(document.get("frames"))]
    for entry in (table(e) for frame in frames for e in rows(frame.get("side_data_list"))):
        if "red_x" in entry:
            mastering = _mastering(entry)
        elif "max_content" in entry:
            light = f"{count(entry['max_content'])},{count(entry.get('max_average'))}"
    return mastering, light


def _mastering(entry: dict[str, Any]) -> str:
    def units(name: str, scale: int) -> int:
        return round((ratio(entry.get(name)) or Fraction(0)) * scale)

    def point(letters: str, name: str) -> str:
        return f"{letters}({units(name + '_x', 50000)},{units(name + '_y', 50000)})"

    colors = (("G", "green"), ("B", "blue"), ("R", "red"), ("WP", "white_point"))
    light = f"L({units('max_luminance', 10000)},{units('min_luminance', 10000)})"
    return "".join(point(*color) for color in colors) + light
