"""Structured logs: a console for people in development, one JSON object a line in production."""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

_SECRET_FIELD = re.compile(r"secret|token|password|authorization|access_key", re.IGNORECASE)
_SECRET_IN_TEXT = re.compile(
    r"(://[^/\s:@]*:)[^@\s/]+(@)"  # redis://user:PASSWORD@host
    r"|((?:X-Amz-Signature|X-Amz-Credential|X-Amz-Security-Token)=)[^&\s'\"]+",  # presigned URLs
    re.IGNORECASE,
)


def redact(text: str) -> str:
    return _SECRET_IN_TEXT.sub(lambda m: f"{m[1] or m[3]}***{m[2] or ''}", text)


def _redact_fields(
    _logger: Any, _method: str, fields: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    for name, value in fields.items():
        if _SECRET_FIELD.search(name):
            fields[name] = "***"
        elif isinstance(value, str):
            fields[name] = redact(value)
        elif isinstance(value, BaseException):
            fields[name] = redact(f"{type(value).__name__}: {value}")
    return fields


def printable(text: str) -> str:
    """File names are hostile: no line breaks, escapes or surrogates reach a terminal."""
    if text.isprintable():
        return text
    return text.encode("unicode_escape", "surrogatepass").decode("ascii")


def _printable(
    _logger: Any, _method: str, fields: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    for name, value in fields.items():
        if isinstance(value, str) and name != "exception":
            fields[name] = printable(value)
    return fields


def _is_news(record: logging.LogRecord) -> bool:
    """Not: that a connection broke while aiohttp was writing to it, in a task of its own. Whoever
    made the request gets an error for it, too; a minute without S3 would be 50 tracebacks."""
    error = record.exc_info[1] if record.exc_info else None
    return not (isinstance(error, OSError) and "ClientRequest.write_bytes" in record.getMessage())


def configure_logging(*, level: str, json_lines: bool) -> None:
    """Standard error, so that standard output stays for what a command was asked for."""
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        stamp,
        structlog.processors.format_exc_info,
        _redact_fields,
        _printable,
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if json_lines
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=32)
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for noisy in ("botocore", "aiobotocore", "boto3", "urllib3", "aiohttp.access", "watchdog"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # With Redis away it prints a traceback each second, beside the one line of ours.
    logging.getLogger("docket").setLevel(logging.ERROR if root.level > logging.DEBUG else level)
    logging.getLogger("asyncio").addFilter(_is_news)
