"""What every answer has in common: the headers, and how an error is told."""

from aiohttp import web

from cefmp4.errors import (
    AccessDeniedError,
    BucketMissingError,
    CefError,
    RefusedError,
    SettingsError,
    TransientError,
    UnknownJobError,
    UnknownStreamError,
)
from cefmp4.log import redact

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Server": "CefMP4",  # without a version, which would tell attackers what to try
}
RETRY_AFTER_S = 30
_KEPT = ("Allow", "WWW-Authenticate", "Retry-After")
_UNKNOWN = (UnknownStreamError, UnknownJobError)
# Time or an operator heals it.
_NOT_NOW = (TransientError, AccessDeniedError, BucketMissingError, SettingsError)


def harden(response: web.StreamResponse) -> None:
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)


def problem(status: int, reason: str) -> web.Response:
    return web.json_response({"error": reason}, status=status)


def problem_of(error: CefError) -> web.Response:
    response = problem(_status_of(error), redact(str(error)))
    if response.status == 503:
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return response


def _status_of(error: CefError) -> int:
    if isinstance(error, _UNKNOWN):
        return 404
    if isinstance(error, RefusedError):
        return 409
    return 503 if isinstance(error, _NOT_NOW) else 500


def problem_of_http(error: web.HTTPError) -> web.Response:
    # What aiohttp says of an expectation repeats it.
    reason = error.reason if error.status == 417 else error.text or error.reason
    response = problem(error.status, reason)
    for name in _KEPT:
        if name in error.headers:
            response.headers[name] = error.headers[name]
    return response
