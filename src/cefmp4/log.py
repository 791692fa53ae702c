"""Structured logs: a console for people in development, one JSON object a line in production."""

import atexit
import logging
import re
import sys
import threading
from collections.abc import MutableMapping
from types import TracebackType
from typing import Any

import structlog

from cefmp4.log_flood import FloodGate

Fields = MutableMapping[str, Any]

_SECRET_FIELD = re.compile(r"secret|token|password|authorization|access_key", re.IGNORECASE)
_SECRET_IN_TEXT = re.compile(
    # redis://user:PASSWORD@host, whatever is in it; not the port of http://host:9000/key@home
    r"((?:rediss?|unix|postgres(?:ql)?)://[^/\s:@\[]*:|://[^/\s:@\[]*:(?!\d{1,5}(?:/|$|\s)))\S+(@)"
    r"|((?:X-Amz-Signature|X-Amz-Credential|X-Amz-Security-Token)=)[^&\s'\"]+"  # presigned URLs
    r"|(\b(?:ssl)?password\s*=\s*)(?:'(?:\\.|[^'\\])*'|[^&\s'\"]+)",  # addresses of Postgres
    re.IGNORECASE,
)


def redact(text: str) -> str:
    return _SECRET_IN_TEXT.sub(lambda m: f"{m[1] or m[3] or m[4]}***{m[2] or ''}", text)


def redact_all(value: Any) -> Any:
    """Each text in what is fit for JSON."""
    if isinstance(value, dict):
        return {name: redact_all(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [redact_all(one) for one in value]
    return redact(value) if isinstance(value, str) else value


def printable(text: str) -> str:
    """File names are hostile: no line breaks, escapes or surrogates reach a terminal."""
    if text.isprintable():
        return text
    return text.encode("unicode_escape", "surrogatepass").decode("ascii")


def _clean(_logger: Any, _method: str, fields: Fields) -> Fields:
    """Of secrets, and of what a terminal would obey."""
    for name, value in fields.items():
        if _SECRET_FIELD.search(name):
            fields[name] = "***"
        elif isinstance(value, str | BaseException):
            text = value if isinstance(value, str) else f"{type(value).__name__}: {value}"
            lines = redact(text).split("\n") if name == "exception" else [redact(text)]
            fields[name] = "\n".join(map(printable, lines))
    return fields


def _indent_trace(_logger: Any, _method: str, fields: Fields) -> Fields:
    """What an error says may be a hostile name, too: no line of it looks like one of the log."""
    if isinstance(trace := fields.get("exception"), str):
        fields["exception"] = "\n".join(f"    {line}" for line in trace.split("\n"))
    return fields


def _merge_ids(logger: Any, method: str, fields: Fields) -> Fields:
    """asyncio tells of an error that nobody asked for when its task is cleared away: in the midst
    of whatever else goes on, so that the ids of that would be wrong."""
    record = fields.get("_record")
    if record is not None and record.name == "asyncio":
        return fields
    return structlog.contextvars.merge_contextvars(logger, method, fields)


def _name_logger(logger: Any, _method: str, fields: Fields) -> Fields:
    record = fields.get("_record")
    fields["logger_name"] = logger.name if record is None else record.name
    return fields


def _is_news(record: logging.LogRecord) -> bool:
    """Not: that a connection broke while a library was using it in a task of its own. Whoever made
    the request gets an error for it, too, and reachability tells of the outage once; a minute
    without a server would be 50 tracebacks."""
    error = record.exc_info[1] if record.exc_info else None
    if error is None or logging.getLogger().level <= logging.DEBUG:
        return True
    is_of_redis = type(error).__module__.startswith("redis.")
    if record.name.startswith("redis"):
        return not (is_of_redis or isinstance(error, OSError))
    is_write = isinstance(error, OSError) and "ClientRequest.write_bytes" in record.getMessage()
    return record.name != "asyncio" or not (is_of_redis or is_write)


def configure_logging(*, level: str, json_lines: bool) -> None:
    """Standard error, so that standard output stays for what a command was asked for."""
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
    shared: list[Any] = [
        _merge_ids,
        structlog.stdlib.add_log_level,
        *([_name_logger] if json_lines else []),
        stamp,
        structlog.processors.format_exc_info,
        _clean,
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
    handler.addFilter(_is_news)
    if logging.getLevelName(level) > logging.DEBUG:  # who looks for bugs wants it all
        handler.addFilter(gate := FloodGate())
        atexit.register(gate.flush)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *([] if json_lines else [_indent_trace]),
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for noisy in ("botocore", "aiobotocore", "boto3", "urllib3", "aiohttp.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # Its pool tells of what whoever asked for it is told by an error.
    logging.getLogger("psycopg").setLevel(logging.ERROR)
    # Each step tells itself how it ended, and a worker how it stops. What keeps a flow from going
    # on is told there alone.
    for name, least in (("temporalio", logging.WARNING), ("temporalio.activity", logging.ERROR)):
        logging.getLogger(name).setLevel(least if root.level > logging.DEBUG else level)
    if json_lines:
        _take_over_the_rest()


def _take_over_the_rest() -> None:
    """What Python itself would write to standard error becomes lines of the log, too."""
    logging.captureWarnings(True)
    log = structlog.get_logger("cefmp4")

    def crashed(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        log.critical("crashed", exc_info=(kind, error, trace))

    def thread_crashed(told: threading.ExceptHookArgs) -> None:
        if told.exc_value is not None and not isinstance(told.exc_value, SystemExit):
            log.error("a thread crashed", exc_info=told.exc_value)

    def ignored(told: Any) -> None:  # typeshed has its type for the type checker only
        log.error(told.err_msg or "an error was ignored", exc_info=told.exc_value)

    sys.excepthook, threading.excepthook, sys.unraisablehook = crashed, thread_crashed, ignored
