"""A file's name in a log line cannot begin a line, move a cursor or end a JSON string, whatever is
in it; nor can what an error says of it."""

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from cefmp4.log import configure_logging

FAKE = "2026-11-26T10:00:00Z [error    ] all is lost"
NAMES = {
    "newline": f"a\n{FAKE}.mp4",
    "carriage return": f"a\r{FAKE}.mp4",
    "line separator": f"a\u2028{FAKE}\x85{FAKE}.mp4",
    "escape codes": "a\x1b[2J\x1b]0;title\x07\x9b1A.mp4",
    "right to left": "a\u202e4pm.exe.mp4",
    "no text": "a\udcff\udc80.mp4",
    "quotes": 'a", "level": "critical", "x": "\\.mp4',
    "huge": ("d\n" * 100 + "/") * 15,
}


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def say(name: str, *, json_lines: bool) -> None:
    configure_logging(level="INFO", json_lines=json_lines)
    log = structlog.get_logger("test")
    log.info("one line", file_path=name, key=[name], reason=OSError(5, "gone", name))
    log.warning(name)
    logging.getLogger("library").error("of %s", name)
    try:
        raise ValueError(f"cannot read {name}")
    except ValueError:
        log.exception("it failed", file_path=name)


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_on_a_console_no_line_and_no_cursor_is_forged(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    say(name, json_lines=False)
    text = capsys.readouterr().err
    text.encode()
    lines = text.split("\n")
    assert not [char for line in lines for char in line if not char.isprintable()]
    assert len([line for line in lines if line and not line.startswith("    ")]) == 4


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_as_json_there_is_one_object_a_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    say(name, json_lines=True)
    text = capsys.readouterr().err
    text.encode()
    assert not [char for char in text if char != "\n" and not char.isprintable()]
    levels = [json.loads(line)["level"] for line in text.splitlines()]
    assert levels == ["info", "warning", "error", "error"]
