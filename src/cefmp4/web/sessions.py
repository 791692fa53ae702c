"""Who has logged in: a cookie that stands for the token, and is of no use after its time, after the
logout, or anywhere else."""

import hashlib
import secrets
import time
from collections.abc import Callable

from aiohttp import web

LASTS_S = 12 * 3600.0
MAX_SESSIONS = 1000  # then the oldest goes
MAX_COOKIES = 100


class Sessions:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ends_at: dict[bytes, float] = {}  # by digest, the oldest first

    def has(self, request: web.Request) -> bool:
        now = self._clock()
        return any(now < self._ends_at.get(one, 0.0) for one in _given(request))

    def open(self, request: web.Request, response: web.Response) -> None:
        """Always a new one: what the browser sent before means nothing."""
        self.close(request, response)
        while len(self._ends_at) >= MAX_SESSIONS:
            del self._ends_at[next(iter(self._ends_at))]
        secret = secrets.token_urlsafe(32)
        self._ends_at[_digest(secret)] = self._clock() + LASTS_S
        response.set_cookie(
            _name(request),
            secret,
            max_age=int(LASTS_S),
            httponly=True,
            samesite="Strict",
            # What the browser itself says: a proxy in front may not tell.
            secure=request.headers.get("Origin", "").startswith("https:"),
        )

    def close(self, request: web.Request, response: web.Response) -> None:
        for one in _given(request):
            self._ends_at.pop(one, None)
        response.del_cookie(_name(request))


def _given(request: web.Request) -> list[bytes]:
    """All of that name: another service of this host may have set one, too."""
    pairs = request.headers.get("Cookie", "").split(";")[:MAX_COOKIES]
    name = _name(request)
    return [
        _digest(value)
        for key, _, value in (pair.strip().partition("=") for pair in pairs)
        if key == name
    ]


def _name(request: web.Request) -> str:
    """Browsers send cookies to all ports of a host: two services must not log each other out."""
    port = request.headers.get("Host", "").rpartition(":")[2]
    return f"cefmp4_session_{port}" if port.isascii() and port.isdecimal() else "cefmp4_session"


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
