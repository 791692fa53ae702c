"""What the log says of outages: one line each, not the tracebacks of libraries."""

import ast
import asyncio
import json
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from redis.exceptions import ConnectionError as RedisConnectionError

import cefmp4
from cefmp4.log import configure_logging

_LOGGERS = ("", "temporalio", "temporalio.activity", "redis", "asyncio", "py.warnings")


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [(logger.handlers, logger.level, logger.filters[:]) for logger in loggers]
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    yield
    logging.captureWarnings(False)
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
    for logger, (handlers, level, filters) in zip(loggers, before, strict=True):
        logger.handlers, logger.filters = handlers, filters
        logger.setLevel(level)
    structlog.reset_defaults()


class ClientRequest:
    """Named as the one of aiohttp is."""

    async def write_bytes(self, error: Exception) -> None:
        raise error


@pytest.mark.parametrize(
    ("error", "is_told"), [(ConnectionResetError("closing"), False), (ValueError("a bug"), True)]
)
async def test_a_connection_that_broke_is_told_by_who_made_the_request(
    capsys: pytest.CaptureFixture[str], error: Exception, is_told: bool
) -> None:
    configure_logging(level="INFO", json_lines=True)
    task = asyncio.create_task(ClientRequest().write_bytes(error))
    await asyncio.wait([task])
    del task  # nobody has asked for its exception
    assert ("never retrieved" in capsys.readouterr().err) == is_told


@pytest.mark.parametrize(
    ("level", "name", "is_told"),
    [
        ("INFO", "temporalio.activity", False),
        ("DEBUG", "temporalio.activity", True),
        ("INFO", "temporalio.worker._workflow_instance", True),
    ],
)
def test_the_engine_tells_of_steps_only_who_looks_for_bugs(
    capsys: pytest.CaptureFixture[str], level: str, name: str, is_told: bool
) -> None:
    """What a step says of its end is one line already; a flow that cannot go on is a bug."""
    configure_logging(level=level, json_lines=True)
    logging.getLogger(name).warning("trouble")
    assert ("trouble" in capsys.readouterr().err) == is_told


@pytest.mark.parametrize(
    ("name", "error", "is_told"),
    [
        ("redis.client", ConnectionResetError("gone"), False),
        ("redis.client", RedisConnectionError("gone"), False),
        ("redis.client", KeyError("a bug"), True),
        ("asyncio", RedisConnectionError("gone"), False),
    ],
)
def test_an_outage_is_no_traceback_of_a_library(
    capsys: pytest.CaptureFixture[str], name: str, error: Exception, is_told: bool
) -> None:
    configure_logging(level="INFO", json_lines=True)
    logging.getLogger(name).error("trouble", exc_info=error)
    assert ("trouble" in capsys.readouterr().err) == is_told


def json_lines(text: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in text.splitlines()]


def test_what_python_itself_says_is_a_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(level="INFO", json_lines=True)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.warn("this is old", stacklevel=1)
    sys.excepthook(ValueError, ValueError("first"), None)
    failing = threading.Thread(target=lambda: [][0])
    failing.start()
    failing.join()
    lines = json_lines(capsys.readouterr().err)
    assert [line["level"] for line in lines] == ["warning", "critical", "error"]
    assert "this is old" in lines[0]["event"]
    assert "ValueError: first" in lines[1]["exception"]
    assert "IndexError" in lines[2]["exception"]
    assert all(line["logger_name"] for line in lines)


def test_what_asyncio_tells_late_has_no_ids(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(level="INFO", json_lines=True)
    with structlog.contextvars.bound_contextvars(stream_id="another"):
        logging.getLogger("asyncio").error("Task exception was never retrieved")
        logging.getLogger("elsewhere").error("about this stream")
    late, own = json_lines(capsys.readouterr().err)
    assert "stream_id" not in late
    assert own["stream_id"] == "another"


def test_no_name_reaches_a_terminal_through_a_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging(level="INFO", json_lines=False)
    structlog.get_logger().error("trouble", exc_info=ValueError("a\x1b[31mb"))
    assert "\x1b[31m" not in capsys.readouterr().err


# Fields that say the same as one of those that docs/operations.md names.
_OTHER_NAMES = {"path", "relpath", "file", "filename", "job", "id", "stream", "logger", "error"}


def _fields_of_log_lines() -> Iterator[tuple[str, str]]:
    for path in Path(cefmp4.__file__).parent.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and ast.unparse(call.func).startswith("log."):
                for keyword in call.keywords:
                    yield f"{path.name}:{call.lineno}", keyword.arg or ""


def test_each_thing_has_one_name_in_all_lines() -> None:
    found = list(_fields_of_log_lines())
    assert len(found) > 100
    assert [(where, name) for where, name in found if name in _OTHER_NAMES] == []
