"""What we add to the pipeline of Swift's proxy, which loads it by the names of this module: the
memcache that Swift wants, and an answer for those who store on a full disk."""

import os
import time
from collections.abc import Callable, Iterable
from typing import Any
from xml.sax.saxutils import escape

from swift.common.utils import close_if_possible
from swift.common.wsgi import WSGIContext

from cefmp4.embedded.swift_config import DEVICES
from cefmp4.model.part import MIB

_MAX_KEYS = 50_000  # bounds memory: container and account facts, about 1 KB each
RESERVE_BYTES = 64 * MIB  # for deletes, listings, manifests, logs and the Redis beside us
RESERVE_SHARE = 100  # of a small disk
FULL = "507 Insufficient Storage"

WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class DictCache:
    """The memcache, as a dictionary, because all of Swift is in this one process: the calls of
    Swift's MemcacheRing that its proxy makes. `time` is seconds to live, 0 for ever; other keywords
    are about servers that do not exist here."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._values: dict[str, tuple[float, Any]] = {}

    def get(self, key: str, **_: Any) -> Any:
        expires_at, value = self._values.get(key, (0.0, None))
        if expires_at <= self._clock():
            self._values.pop(key, None)
            return None
        return value

    def set(self, key: str, value: Any, time: float = 0, **_: Any) -> None:
        if len(self._values) >= _MAX_KEYS and key not in self._values:
            self._values.clear()  # the price is one look at the disk per key
        self._values[key] = (self._clock() + time if time else float("inf"), value)

    def incr(self, key: str, delta: int = 1, time: float = 0, **_: Any) -> int:
        value = max(0, int(self.get(key) or 0) + delta)
        self.set(key, value, time=time)
        return value

    def delete(self, key: str, **_: Any) -> None:
        self._values.pop(key, None)


def room_bytes() -> int:
    """How much may still be stored; negative where the reserve is in use."""
    disk = os.statvfs(DEVICES)
    reserve = min(RESERVE_BYTES, disk.f_blocks * disk.f_frsize // RESERVE_SHARE)
    return disk.f_bavail * disk.f_frsize - reserve


class SpaceGuard:
    """Tells clients that the disk is full. Swift itself would write to the last byte, after which
    not even a delete works, and answer "please reduce your request rate". What will not fit is
    refused before it is sent, and what did not fit after all is explained: others fill the disk,
    too."""

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


def cache(_global_conf: dict[str, str], **_local_conf: str) -> Callable[[WsgiApp], WsgiApp]:
    values = DictCache()

    def with_cache(app: WsgiApp) -> WsgiApp:
        def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
            environ["swift.cache"] = values
            return app(environ, start)

        return answer

    return with_cache


def space(_global_conf: dict[str, str], **_local_conf: str) -> Callable[[WsgiApp], SpaceGuard]:
    return SpaceGuard
