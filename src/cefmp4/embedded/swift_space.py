"""Tells clients that the disk is full. Swift itself would write to the last byte, after which not
even a delete works, and answer "please reduce your request rate"."""

import os
from collections.abc import Callable, Iterable
from typing import Any
from xml.sax.saxutils import escape

from swift.common.utils import close_if_possible
from swift.common.wsgi import WSGIContext

from cefmp4.embedded.swift_cache import WsgiApp
from cefmp4.embedded.swift_config import DEVICES
from cefmp4.model.part import MIB

RESERVE_BYTES = 64 * MIB  # for deletes, listings, manifests, logs and the Redis beside us
RESERVE_SHARE = 100  # of a small disk
FULL = "507 Insufficient Storage"


def room_bytes() -> int:
    """How much may still be stored; negative where the reserve is in use."""
    disk = os.statvfs(DEVICES)
    reserve = min(RESERVE_BYTES, disk.f_blocks * disk.f_frsize // RESERVE_SHARE)
    return disk.f_bavail * disk.f_frsize - reserve


class SpaceGuard:
    """Refuses what will not fit before it is sent, and explains what did not fit after all: others
    fill the disk, too."""

    def __init__(self, app: WsgiApp, room: Callable[[], int] = room_bytes) -> None:
        self._app = app
        self._room = room

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        size = _stored_bytes(environ)
        if size is None:
            return self._app(environ, start_response)
        if not self._has_room(size):
            return _refuse(start_response)
        context = WSGIContext(self._app)
        body = context._app_call(environ)
        if context._get_status_int() == 503 and not self._has_room(size):
            close_if_possible(body)
            return _refuse(start_response)
        start_response(
            context._response_status, context._response_headers, context._response_exc_info
        )
        return body  # type: ignore[no-any-return]  # Swift has no types

    def _has_room(self, size: int) -> bool:
        return self._room() >= size


def _stored_bytes(environ: dict[str, Any]) -> int | None:
    """What this request adds at least; None for one that must work on a full disk, too: a delete,
    the completion of what is stored already, a bucket that is there at every start."""
    method, query = environ["REQUEST_METHOD"], environ.get("QUERY_STRING", "")
    is_of_object = "/" in environ.get("PATH_INFO", "").strip("/")
    if method == "PUT" and is_of_object:
        length = environ.get("CONTENT_LENGTH") or ""
        return int(length) if length.isdecimal() else 0
    is_start = method == "POST" and "uploads" in query.split("=")[0].split("&")
    return 0 if is_start else None


def _refuse(start_response: Callable[..., Any]) -> list[bytes]:
    message = escape(f"no space is left on the disk of {os.getcwd()}")
    body = f"<Error><Code>InsufficientStorage</Code><Message>{message}</Message></Error>".encode()
    headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))]
    start_response(FULL, headers)
    return [body]


def filter_factory(
    _global_conf: dict[str, str], **_local_conf: str
) -> Callable[[WsgiApp], SpaceGuard]:
    """What the proxy's pipeline loads by the name of this module."""
    return SpaceGuard
