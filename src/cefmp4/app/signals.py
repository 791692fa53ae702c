"""SIGTERM, SIGINT and SIGHUP, heard from the first moment on, whatever the process is busy with.
Loads nothing, so that this moment is early."""

import os
import signal
from collections.abc import Callable
from types import FrameType

_NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class _Ear:
    """`answer` is what the first signal calls, between any two instructions of the main thread."""

    answer: Callable[[], None] | None = None
    has_heard = False


def hear(answer: Callable[[], None] | None = None) -> None:
    """The first signal is answered, a second one ends the process at once. As long as there is no
    `answer`, nothing has begun, and the first one ends it, too."""
    _Ear.answer, _Ear.has_heard = answer, False
    for number in _NUMBERS:
        is_nohup = number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN
        if not is_nohup:
            signal.signal(number, _on_signal)


def hear_no_more() -> None:
    for number in _NUMBERS:
        if signal.getsignal(number) is _on_signal:
            usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, usual)


def _on_signal(number: int, _frame: FrameType | None) -> None:
    if _Ear.has_heard:
        if number == signal.SIGHUP:
            return  # a terminal that is closed says so twice, itself and through its shell
        os._exit(128 + number)
    if _Ear.answer is None:
        os._exit(0)
    _Ear.has_heard = True
    _Ear.answer()
