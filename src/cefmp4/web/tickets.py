"""Addresses that players open which know neither token nor cookie: of one recording, for a day."""

import hashlib
import hmac
import time
from collections.abc import Callable

LASTS_S = 24 * 3600


class Tickets:
    """Made of the token, so that they outlive a restart, and end with the token."""

    def __init__(self, token: str, clock: Callable[[], float] = time.time) -> None:
        secret = token.encode("utf-8", "surrogateescape")
        self._key = hmac.digest(secret, b"cefmp4 player", "sha256")
        self._clock = clock

    def issue(self, subject: str) -> str:
        ends_at = f"{int(self._clock()) + LASTS_S:x}"
        return f"{ends_at}-{self._signature(ends_at, subject)}"

    def opens(self, ticket: str, subject: str) -> bool:
        ends_at, _, given = ticket.partition("-")
        right = self._signature(ends_at, subject)
        if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), right.encode()):
            return False
        return int(ends_at, 16) > self._clock()

    def _signature(self, ends_at: str, subject: str) -> str:
        told = f"{ends_at} {subject}".encode("utf-8", "surrogateescape")
        return hmac.new(self._key, told, hashlib.sha256).hexdigest()[:40]
