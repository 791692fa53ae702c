"""What every answer has in common: the headers, and how an error is told."""

from typing import Any

from aiohttp import web

from cefmp4.errors import (
    AccessDeniedError,
    BucketMissingError,
    CefError,
    RefusedError,
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
_KEPT = ("Allow", "WWW-Authenticate", "Retry-After")
_STATUS_OF: tuple[tuple[type[CefError], int], ...] = (
    (UnknownStreamError, 404),
    (UnknownJobError, 404),
    (RefusedError, 409),
    (TransientError, 503),
    (AccessDeniedError, 503),  # an operator can heal it
    (BucketMissingError, 503),
    (CefError, 500),
)


def harden(response: web.StreamResponse) -> None:
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)


def problem(status: int, reason: str) -> web.Response:
    return web.json_response({"error": reason}, status=status)


def problem_of(error: CefError) -> web.Response:
    status = next(status for kind, status in _STATUS_OF if isinstance(error, kind))
    return problem(status, redact(str(error)))


def problem_of_http(error: web.HTTPError) -> web.Response:
    # What aiohttp says of an expectation repeats it.
    response = problem(error.status, error.reason if error.status == 417 else _said(error))
    for name in _KEPT:
        if name in error.headers:
            response.headers[name] = error.headers[name]
    return response


def _said(error: web.HTTPError) -> Any:
    return error.text or error.reason
