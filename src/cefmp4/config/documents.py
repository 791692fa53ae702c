"""What people read of the settings, written from them: `python -m cefmp4.config.documents` writes
example.env and docs/configuration.md into the current folder."""

import sys
import textwrap
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from cefmp4.config.section import Section
from cefmp4.config.settings import Settings

SECTIONS = [one for one in Settings.__bases__ if issubclass(one, Section)]
_WIDTH = 100
_INTRO = (
    "Every setting of CefMP4. Copy this file to .env and change what you need: a line that begins "
    "with '#' shows the default. Where a variable of the environment has the same name, it wins."
)
_PAGE_INTRO = (
    "Every setting, from the environment or from a file `.env` in the folder where a command is "
    "started; the environment wins. `example.env` has the same as a file to copy. A value that "
    "cannot be used ends the start with exit code 2 and one line that names it. Lists are written "
    'with commas or as JSON, words in any case. "Too small" and "too big" say what happens then.'
)


def example_env() -> str:
    blocks = [
        _block(name, field) for section in SECTIONS for name, field in section.model_fields.items()
    ]
    return "\n\n".join([_comment(_INTRO), *blocks]) + "\n"


def configuration_page() -> str:
    """The page docs/configuration.md."""
    parts = ["# Configuration", _PAGE_INTRO]
    for section in SECTIONS:
        title = section.__name__.removesuffix("Settings")
        rows = [_row(name, field) for name, field in section.model_fields.items()]
        table = ["| setting | default | meaning |", "|---|---|---|", *rows]
        about = sys.modules[section.__module__].__doc__ or ""
        parts += [f"## {title}", about, "\n".join(table)]
    return "\n\n".join(parts) + "\n"


def _row(name: str, field: FieldInfo) -> str:
    meaning = " ".join(_explained(field)).replace("|", "\\|").replace("<", "&lt;")
    default = _value(field.default)
    shown = f"`{default.replace(',', ', ')}`" if default else ""
    return f"| `{name.upper()}` | {shown} | {meaning} |"


def _block(name: str, field: FieldInfo) -> str:
    # Commented out, so that a copy keeps following the defaults of a newer version.
    return "\n".join(
        [*map(_comment, _explained(field)), f"#{name.upper()}={_value(field.default)}"]
    )


def _explained(field: FieldInfo) -> list[str]:
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    labels = (("small", "Too small"), ("big", "Too big"))
    consequences = [f"{label}: {extra[key]}." for key, label in labels if extra.get(key)]
    return [f"{_sentence(field.description or '')}{_limits(field)}", *consequences]


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
    Path("example.env").write_text(example_env())
    Path("docs/configuration.md").write_text(configuration_page())
