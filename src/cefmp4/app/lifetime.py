"""How long a command runs: until it is told to end, and not much longer."""

import asyncio
import os
import threading

import structlog

from cefmp4.app import signals

log = structlog.get_logger()

MIN_STOP_S = 2.0
LAST_WORDS_S = 1.0


def stop_of_signals(within_s: float | None = None) -> asyncio.Event:
    """What SIGTERM, SIGINT or SIGHUP set; a second one ends the process at once. After
    `within_s` seconds it ends in any case: a thread that a disk holds up cannot be told to.
    That is as safe as a kill, and no server that we started outlives us."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def answer() -> None:
        if within_s is not None:
            end = threading.Timer(max(within_s, MIN_STOP_S), _end_now)
            end.daemon = True
            end.start()
        loop.call_soon_threadsafe(stop.set)

    signals.hear(answer)
    return stop


def _end_now() -> None:
    """The line is said by somebody else: whoever reads the log may have stopped reading."""
    reason = "the stop takes too long: ending as a kill would, the next start goes on from there"
    teller = threading.Thread(target=log.warning, args=(reason,), daemon=True)
    teller.start()
    teller.join(LAST_WORDS_S)
    os._exit(0)
