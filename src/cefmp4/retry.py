"""When to try again, and how long to wait before: a few times for single requests, for a while
where somebody waits for an answer, and without end for streams, while their file exists."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import uniform
from typing import TypeVar

import structlog
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
    stop_never,
)
from tenacity.stop import StopBaseT

from cefmp4 import metrics
from cefmp4.errors import (
    AccessDeniedError,
    BucketMissingError,
    ServerUnreachableError,
    StoreFullError,
    TablesMissingError,
    ThrottledError,
    TransientError,
)
from cefmp4.reachability import level_of

log = structlog.get_logger()
T = TypeVar("T")
Errors = tuple[type[Exception], ...]

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


async def _repeated(
    request: Callable[[], Awaitable[T]],
    *,
    on: Errors,
    backoff: Backoff,
    tell: Callable[[int, BaseException], None],
    stop: StopBaseT = stop_never,
    within_s: float = math.inf,
) -> T:
    """`tell` hears of each error that is not the last, and which in a row it is."""
    try:
        return await request()  # outside of the loop, which costs as much as a request to Redis
    except on as error:
        failed = [error]

    async def again() -> T:
        if failed:
            raise failed.pop()
        return await request()

    def wait_s(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        left_s = max(0.0, within_s - (state.seconds_since_start or 0.0))
        return min(left_s, backoff.wait_s(state.attempt_number, error))

    def before_wait(state: RetryCallState) -> None:
        if state.outcome and (error := state.outcome.exception()):
            tell(state.attempt_number, error)

    return await AsyncRetrying(
        stop=stop,
        retry=retry_if_exception_type(on),
        wait=wait_s,
        sleep=_wait,
        before_sleep=before_wait,
        reraise=True,
    )(again)


async def _wait(seconds: float) -> None:
    await asyncio.sleep(seconds if _waiting else 0)


async def bounded(
    request: Callable[[], Awaitable[T]],
    *,
    server: str,
    attempts: int = REQUEST_ATTEMPTS,
    on: Errors = (TransientError,),
    backoff: Backoff = REQUEST_BACKOFF,
) -> T:
    """Runs one request, which must be safe to repeat, until it works or `attempts` are used up;
    then the last of the errors `on` comes out. Every other error comes out at once."""
    return await _repeated(
        request,
        on=on,
        backoff=backoff,
        tell=lambda _failures, _error: metrics.retries.labels(server).inc(),
        stop=stop_after_attempt(attempts),
    )


async def for_a_while(
    request: Callable[[], Awaitable[T]],
    *,
    seconds: float,
    on: Errors,
    tell: Callable[[BaseException], None] = lambda _error: None,
) -> T:
    """Runs it until it works or the time is over, at whose very end it is tried for the last time;
    then that error comes out. `tell` hears of the first one."""

    def tell_once(failures: int, error: BaseException) -> None:
        if failures == 1:
            tell(error)

    return await _repeated(
        request,
        on=on,
        backoff=STREAM_BACKOFF,
        tell=tell_once,
        stop=stop_after_delay(seconds),
        within_s=seconds,
    )


async def at_start(
    request: Callable[[], Awaitable[T]], *, server: str, setting: str, seconds: float
) -> T:
    """Waits for a server that may start beside us; then it is out of reach."""

    def tell(error: BaseException) -> None:
        log.warning(f"waiting for {server}", reason=str(error))

    try:
        return await for_a_while(request, seconds=seconds, on=(TransientError,), tell=tell)
    except TransientError as error:
        hint = error.hint or f"check {setting}"
        raise ServerUnreachableError(error.args[0], hint=hint) from error


# What an operator, or time, can heal while the file waits on the disk.
HEALABLE = (TransientError, AccessDeniedError, BucketMissingError, TablesMissingError)
_REPORT_EVERY = 8  # failures in a row between two log lines of one wait


async def patiently(request: Callable[[], Awaitable[T]], *, what: str) -> T:
    """Runs a step of a stream until it works, for as long as it takes. Cancelling it is the only
    way out; errors that time cannot heal come out at once."""

    def tell(failures: int, error: BaseException) -> None:
        if failures % _REPORT_EVERY == 1:
            log.log(level_of(error), f"{what} failed, trying again", reason=str(error))
        metrics.count_failure(what.replace(" ", "_"))

    return await _repeated(request, on=HEALABLE, backoff=STREAM_BACKOFF, tell=tell)
