"""Wrong tokens: each is answered late, and later the more there were from its address. A right one
is never kept waiting, so that nobody can lock out who knows it."""

import asyncio
import ipaddress
import time
from collections import Counter, OrderedDict

FIRST_S, LONGEST_S = 0.05, 1.0
FORGET_S = 300.0
MAX_ADDRESSES = 1000
MAX_WAITING = 8  # of one address, and four times as many in all: the rest is told at once


class Guesses:
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
