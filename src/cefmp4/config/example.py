"""Prints example.env from the settings themselves: `python -m cefmp4.config.example`."""

import sys
import textwrap
from enum import Enum
from typing import Any

from pydantic.fields import FieldInfo

from cefmp4.config.settings import Settings

_WIDTH = 100
_INTRO = (
    "Every setting of CefMP4. Copy this file to .env and change what you need: a line that begins "
    "with '#' shows the default. Where a variable of the environment has the same name, it wins."
)


def render() -> str:
    blocks = [_comment(_INTRO)]
    blocks += [_block(name, field) for name, field in Settings.model_fields.items()]
    return "\n\n".join(blocks) + "\n"


def _block(name: str, field: FieldInfo) -> str:
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    lines = [_comment(f"{_sentence(field.description or '')}{_limits(field)}")]
    for key, label in (("small", "Too small"), ("big", "Too big")):
        if extra.get(key):
            lines.append(_comment(f"{label}: {extra[key]}."))
    # Commented out, so that a copy keeps following the defaults of a newer version.
    lines.append(f"#{name.upper()}={_value(field.default)}")
    return "\n".join(lines)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _limits(field: FieldInfo) -> str:
    """The allowed range, as the validation knows it."""
    words = {"ge": "at least", "gt": "more than", "le": "at most"}
    found = [
        f"{word} {_value(getattr(limit, name))}"
        for limit in field.metadata
        for name, word in words.items()
        if getattr(limit, name, None) is not None
    ]
    return f" Allowed: {', '.join(found)}." if found else ""


def _value(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _comment(text: str) -> str:
    return "\n".join(
        f"# {line}" for line in textwrap.wrap(text, _WIDTH - 2, break_on_hyphens=False)
    )


if __name__ == "__main__":
    sys.stdout.write(render())
