"""Errors of SurrealDB and of its client, as ours."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from surrealdb import ServerError, SurrealError
from websockets.exceptions import WebSocketException

from cefmp4.errors import (
    AccessDeniedError,
    CefError,
    PermanentError,
    ServerUnreachableError,
    SettingsError,
    TransientError,
)
from cefmp4.log import printable, redact

_LONGEST = 300
_CONFLICT = re.compile(r"can be retried|read or write conflict|resource busy", re.IGNORECASE)
_EXPIRED = re.compile(r"(session|token) (has|is) expired", re.IGNORECASE)
_REFUSED = re.compile(
    r"problem with authentication|not enough permissions|\bIAM error|not allowed", re.IGNORECASE
)
_TOO_SLOW = re.compile(r"exceeded the timeout|transaction timed ?out", re.IGNORECASE)
_UNREADABLE = re.compile(r"being encoded into a CBOR|^Failed to (convert|encode)")
_OF_ANOTHER = "The query was not executed due to a failed transaction"  # which is beside it

# The embedded engine raises errors of Python, and so does what encodes for the wire.
FOREIGN_ERRORS = (
    SurrealError, WebSocketException, OSError, RuntimeError, ValueError, BufferError, TypeError,
)  # fmt: skip


class ConflictError(TransientError):
    """Another one changed the same rows of SurrealDB at the same moment."""


class ConnectionLostError(ServerUnreachableError):
    """The connection to SurrealDB broke."""


class SessionExpiredError(ConnectionLostError):
    """SurrealDB wants us to sign in again."""


class UnreadableError(PermanentError):
    """SurrealDB holds a value that its client cannot be told."""


class InUseError(SettingsError):
    """Another process has the database of that folder open."""


def translated(error: Exception) -> CefError:
    if isinstance(error, CefError):
        return error
    if isinstance(error, TimeoutError):
        return ServerUnreachableError("SurrealDB is out of reach: it does not answer")
    text = shown(str(error)) or type(error).__name__
    if isinstance(error, WebSocketException | OSError):
        return ServerUnreachableError(f"SurrealDB is out of reach: {text}")
    is_kind_of_refusal = isinstance(error, ServerError) and error.kind == "NotAllowed"
    return _of_text(str(error), text, is_refusal=is_kind_of_refusal)


def failure_of(statements: Iterable[Mapping[str, Any]]) -> CefError | None:
    """Of the statements of one query: the one that made the others fail."""
    failed = [one for one in statements if one.get("status") == "ERR"]
    if not failed:
        return None
    texts = [str(one.get("result")) for one in failed]
    told = next((text for text in texts if text != _OF_ANOTHER), texts[0])
    return _of_text(told, shown(told), is_refusal=False)


def shown(text: str) -> str:
    """One short line: a value of some row may be in it."""
    line = printable(redact(" ".join(text.split())))
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"


def _of_text(text: str, line: str, *, is_refusal: bool) -> CefError:
    if _CONFLICT.search(text):
        return ConflictError(f"SurrealDB had a conflict: {line}")
    if _EXPIRED.search(text):
        return SessionExpiredError(f"SurrealDB ended our session: {line}")
    if is_refusal or _REFUSED.search(text):
        return AccessDeniedError(
            f"SurrealDB refused us: {line}",
            hint="check SURREAL_USERNAME and SURREAL_PASSWORD, and what that user may do",
        )
    if _TOO_SLOW.search(text):
        return TransientError(f"SurrealDB was too slow: {line}")
    if _UNREADABLE.search(text):
        return UnreadableError(f"SurrealDB cannot tell what it holds: {line}")
    return PermanentError(f"SurrealDB refused a request: {line}")
