"""What was refused, and why: each is counted, and of many alike one line is logged."""

import time

import structlog

from cefmp4 import metrics

log = structlog.get_logger()

EVERY_S = 10.0
_LONGEST = 80
_TOLD = {
    "malformed": "a request was no HTTP",
    "host": "a request named a host that is not ours",
    "cross_site": "a request came from another site's page",
    "token": "a request had a wrong token",
    "full": "a connection was turned away: there are too many",
    "slow": "a connection was cut off: it was too slow",
    "descriptors": "no connection can be taken: the process has run out of descriptors",
}


class Complaints:
    """Anybody can make us complain; so a line is written for the first, and later one that says
    how many there were meanwhile."""

    def __init__(self) -> None:
        self._quiet_until = dict.fromkeys(metrics.HTTP_REFUSALS, 0.0)
        self._untold = dict.fromkeys(metrics.HTTP_REFUSALS, 0)

    def note(self, reason: str, address: str, detail: str = "") -> None:
        metrics.http_refused.labels(reason).inc()
        now = time.monotonic()
        if now < self._quiet_until[reason]:
            self._untold[reason] += 1
            return
        known: dict[str, object] = {"address": address}
        if detail:
            known["reason"] = detail[:_LONGEST]
        if self._untold[reason]:
            known["alike_before"] = self._untold[reason]
        self._quiet_until[reason] = now + EVERY_S
        self._untold[reason] = 0
        log.warning(_TOLD[reason], **known)
