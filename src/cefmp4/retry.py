"""When to try again, and how long to wait before: one policy for single requests, another for
streams, which never give up while their file exists."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import uniform
from typing import TypeVar

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt

from cefmp4 import metrics
from cefmp4.errors import (
    AccessDeniedError,
    BucketMissingError,
    StoreFullError,
    ThrottledError,
    TransientError,
)
from cefmp4.reachability import level_of

log = structlog.get_logger()
T = TypeVar("T")


FULL_CAP_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Waits double from `first_s` to `cap_s`; each is drawn from its upper half, so that many
    streams that failed together do not come back together."""

    first_s: float = 0.2
    cap_s: float = 5.0

    def wait_s(self, failures: int, error: BaseException | None = None) -> float:
        """How long to wait after the `failures`-th failure in a row. What the server asks for is
        obeyed even where it is longer than the cap, but never longer than four caps. A full disk
        refuses cheaply, and who frees it looks whether it helped."""
        cap_s = min(self.cap_s, FULL_CAP_S) if isinstance(error, StoreFullError) else self.cap_s
        longest = min(cap_s, self.first_s * 2.0 ** min(failures - 1, 30))
        wait = uniform(longest / 2, longest)
        if isinstance(error, ThrottledError):
            wait = max(wait, min(error.retry_after_s, 4 * self.cap_s))
        return wait


REQUEST_ATTEMPTS = 4
REQUEST_BACKOFF = Backoff()
STREAM_BACKOFF = Backoff(first_s=0.5, cap_s=15.0)

_waiting = True


@contextmanager
def no_waiting() -> Iterator[None]:
    """For tests: every wait of this module only yields to the event loop."""
    global _waiting
    before, _waiting = _waiting, False
    try:
        yield
    finally:
        _waiting = before


async def _wait(seconds: float) -> None:
    await asyncio.sleep(seconds if _waiting else 0)


async def bounded(
    request: Callable[[], Awaitable[T]],
    *,
    server: str,
    attempts: int = REQUEST_ATTEMPTS,
    backoff: Backoff = REQUEST_BACKOFF,
) -> T:
    """Runs one request, which must be safe to repeat, until it works or `attempts` are used up;
    then the last TransientError comes out. Every other error comes out at once."""

    def wait_s(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        return backoff.wait_s(state.attempt_number, error)

    retrying = AsyncRetrying(
        stop=stop_after_attempt(attempts),
        retry=retry_if_exception_type(TransientError),
        wait=wait_s,
        sleep=_wait,
        before_sleep=lambda _state: metrics.retries.labels(server).inc(),
        reraise=True,
    )
    return await retrying(request)


class Patience:
    """The unbounded patience of one stream: `await patience.wait(error)` after each failure,
    `patience.reset()` after each success. As an async iterator it waits before every round but
    the first: `async for round in Patience(): ...` with a `break` on success."""

    def __init__(self, backoff: Backoff = STREAM_BACKOFF) -> None:
        self._backoff = backoff
        self.failures = 0

    def __repr__(self) -> str:
        return f"<Patience failures={self.failures}>"

    def next_wait_s(self, error: BaseException | None = None) -> float:
        """Counts one more failure and tells how long to wait for it, for those who wait on more
        than time."""
        self.failures += 1
        return self._backoff.wait_s(self.failures, error)

    async def wait(self, error: BaseException | None = None) -> None:
        await _wait(self.next_wait_s(error))

    def reset(self) -> None:
        self.failures = 0

    def __aiter__(self) -> "Patience":
        self._rounds = 0
        return self

    async def __anext__(self) -> int:
        self._rounds += 1
        if self._rounds > 1:
            await self.wait()
        return self._rounds


# What an operator, or time, can heal while the file waits on the disk.
HEALABLE = (TransientError, AccessDeniedError, BucketMissingError)
_REPORT_EVERY = 8  # failures in a row between two log lines of one wait


async def patiently(request: Callable[[], Awaitable[T]], *, what: str) -> T:
    """Runs a step of a stream until it works, for as long as it takes. Cancelling it is the only
    way out; errors that time cannot heal come out at once."""
    waiting = Patience()
    while True:
        try:
            return await request()
        except HEALABLE as error:
            if waiting.failures % _REPORT_EVERY == 0:
                log.log(level_of(error), f"{what} failed, trying again", reason=str(error))
            metrics.count_failure(what.replace(" ", "_"))
            await waiting.wait(error)
