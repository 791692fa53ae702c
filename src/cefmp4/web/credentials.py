"""What stands for the token, the cookie of a session and the ticket of a player, and what it costs
to guess at it."""

import asyncio
import hashlib
import hmac
import ipaddress
import secrets
import time
from collections import Counter, OrderedDict
from collections.abc import Callable

from aiohttp import web

SESSION_S = 12 * 3600.0
MAX_SESSIONS = 1000  # then the oldest goes
MAX_COOKIES = 100
TICKET_S = 24 * 3600
FIRST_S, LONGEST_S = 0.05, 1.0
FORGET_S = 300.0
MAX_ADDRESSES = 1000
MAX_WAITING = 8  # of one address, and four times as many in all: the rest is told at once


class Sessions:
    """Who has logged in: a cookie that is of no use after its time, after the logout, or anywhere
    else."""

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
        self._ends_at[_digest(secret)] = self._clock() + SESSION_S
        response.set_cookie(
            _name(request),
            secret,
            max_age=int(SESSION_S),
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


def ticket_for(subject: str, token: str, now: float) -> str:
    """For addresses that players open which know neither token nor cookie: of one recording, for a
    day. Made of the token, so that it outlives a restart, and ends with the token."""
    ends_at = f"{int(now) + TICKET_S:x}"
    return f"{ends_at}-{_signature(ends_at, subject, token)}"


def is_ticket(ticket: str, subject: str, token: str, now: float) -> bool:
    ends_at, _, given = ticket.partition("-")
    right = _signature(ends_at, subject, token)
    if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), right.encode()):
        return False
    return int(ends_at, 16) > now


def _signature(ends_at: str, subject: str, token: str) -> str:
    key = hmac.digest(token.encode("utf-8", "surrogateescape"), b"cefmp4 player", "sha256")
    told = f"{ends_at} {subject}".encode("utf-8", "surrogateescape")
    return hmac.new(key, told, hashlib.sha256).hexdigest()[:40]


class Guesses:
    """Wrong tokens: each is answered late, and later the more there were from its address. A right
    one is never kept waiting, so that nobody can lock out who knows it."""

    def __init__(self) -> None:
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._waiting: Counter[str] = Counter()

    async def failed(self, address: str) -> bool:
        """Whether it was waited for; else there are too many at the same moment."""
        place = _network(address)
        delay_s = self._delay_after_one_more(place)
        is_crowded = self._waiting[place] >= MAX_WAITING
        if is_crowded or self._waiting.total() >= 4 * MAX_WAITING:
            return False
        self._waiting[place] += 1
        try:
            await asyncio.sleep(delay_s)
        finally:
            self._waiting[place] -= 1
            self._waiting += Counter()  # forgets who does not wait
        return True

    def _delay_after_one_more(self, place: str) -> float:
        count, last_at = self._failures.pop(place, (0, 0.0))
        now = time.monotonic()
        count = 1 if now - last_at > FORGET_S else min(count + 1, 30)
        self._failures[place] = (count, now)
        while len(self._failures) > MAX_ADDRESSES:
            self._failures.popitem(last=False)
        return float(min(LONGEST_S, FIRST_S * 2.0 ** (count - 1)))


def _network(address: str) -> str:
    """Who has one IPv6 address has 2^64 of them."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if found.version == 4 or found.ipv4_mapped:
        return str(found)
    return str(ipaddress.ip_network((int(found), 64), strict=False))
