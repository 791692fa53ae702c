"""What the log says of outages: one line each, not the tracebacks of libraries."""

import asyncio
import logging
from collections.abc import Iterator

import pytest
import structlog

from cefmp4.log import configure_logging

_LOGGERS = ("", "docket", "asyncio")


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [(logger.handlers, logger.level, logger.filters[:]) for logger in loggers]
    yield
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


@pytest.mark.parametrize(("level", "is_told"), [("INFO", False), ("DEBUG", True)])
def test_the_engine_tells_of_outages_only_who_looks_for_bugs(
    capsys: pytest.CaptureFixture[str], level: str, is_told: bool
) -> None:
    configure_logging(level=level, json_lines=True)
    logging.getLogger("docket.worker").warning("Redis is unavailable, sleeping")
    assert ("Redis is unavailable" in capsys.readouterr().err) == is_told
