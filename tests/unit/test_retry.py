import time

import pytest
from structlog.testing import capture_logs

from cefmp4 import metrics
from cefmp4.errors import (
    AccessDeniedError,
    PermanentError,
    StoreFullError,
    ThrottledError,
    TransientError,
)
from cefmp4.retry import Backoff, bounded, for_a_while, no_waiting, patiently


def _retries() -> float:
    return metrics.REGISTRY.get_sample_value("cefmp4_retries_total", {"server": "t"}) or 0.0


class Failing:
    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    async def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def test_waits_double_up_to_the_cap_and_differ() -> None:
    backoff = Backoff(first_s=1.0, cap_s=8.0)
    for failures, longest in ((1, 1), (2, 2), (3, 4), (4, 8), (5, 8), (5000, 8)):
        waits = [backoff.wait_s(failures) for _ in range(50)]
        assert all(longest / 2 <= wait <= longest for wait in waits)
        assert len(set(waits)) > 1


def test_what_the_server_asks_for_is_obeyed_within_reason() -> None:
    backoff = Backoff(first_s=1.0, cap_s=8.0)
    assert backoff.wait_s(1, ThrottledError(retry_after_s=20.0)) == 20.0
    assert backoff.wait_s(1, ThrottledError(retry_after_s=86400.0)) == 32.0


def test_a_full_disk_is_asked_again_soon() -> None:
    backoff = Backoff(first_s=0.5, cap_s=15.0)
    assert all(backoff.wait_s(failures, StoreFullError()) <= 2.0 for failures in range(1, 40))


async def test_a_request_is_repeated_until_it_works() -> None:
    before, request = _retries(), Failing(TransientError(), ThrottledError())
    with no_waiting():
        assert await bounded(request, server="t") == "done"
    assert request.calls == 3
    assert _retries() - before == 2


async def test_the_last_error_comes_out() -> None:
    request = Failing(*[TransientError(str(n)) for n in range(9)])
    with no_waiting(), pytest.raises(TransientError, match="3"):
        await bounded(request, server="t")
    assert request.calls == 4


async def test_what_repeating_cannot_help_comes_out_at_once() -> None:
    request = Failing(PermanentError())
    with pytest.raises(PermanentError):
        await bounded(request, server="t")
    assert request.calls == 1


async def test_a_stream_never_gives_up_and_says_so_now_and_then() -> None:
    request = Failing(*[AccessDeniedError(str(n)) for n in range(20)])
    with no_waiting(), capture_logs() as lines:
        assert await patiently(request, what="checkpoint") == "done"
    assert request.calls == 21
    assert [line["reason"] for line in lines] == ["0", "8", "16"]


async def test_what_time_cannot_heal_ends_a_stream_at_once() -> None:
    request = Failing(TransientError(), PermanentError())
    with no_waiting(), pytest.raises(PermanentError):
        await patiently(request, what="checkpoint")
    assert request.calls == 2


async def test_for_a_while_tries_to_the_very_end_and_tells_of_the_first_error() -> None:
    told: list[str] = []
    request = Failing(*[TransientError(str(n)) for n in range(9)])
    before = time.monotonic()
    with pytest.raises(TransientError, match="1"):
        await for_a_while(
            request, seconds=0.1, on=(TransientError,), tell=lambda error: told.append(str(error))
        )
    assert time.monotonic() - before >= 0.1
    assert request.calls == 2  # though the pause would have been longer than what was left
    assert told == ["0"]


async def test_for_a_while_is_over_when_it_works() -> None:
    request = Failing(*[TransientError(str(n)) for n in range(7)])
    with no_waiting():
        assert await for_a_while(request, seconds=60, on=(TransientError,)) == "done"
    assert request.calls == 8
