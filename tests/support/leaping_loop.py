"""An event loop that waits for nobody: where nothing is left to do, its time leaps to the next
moment for which somebody waits. A test of waiting times takes no time, and always sees the same.

Where something is under way outside of the loop, in a thread, time passes as it does for all."""

import asyncio
import selectors
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

BEGINNING = 1_000_000.0


class LeapingLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.turns = 0
        self._now = BEGINNING
        self._outside = 0
        self._at_turn: tuple[int, Callable[[], None]] | None = None
        super().__init__(_LeapingSelector(self))

    def time(self) -> float:
        return self._now

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Any, *args: Any
    ) -> "asyncio.Future[Any]":
        future = super().run_in_executor(executor, func, *args)
        self._outside += 1
        future.add_done_callback(self._came_back)
        return future

    def _came_back(self, _future: object) -> None:
        self._outside -= 1

    @contextmanager
    def waiting_outside(self) -> Iterator[None]:
        """Around what waits for another process."""
        self._outside += 1
        try:
            yield
        finally:
            self._outside -= 1

    def in_turns(self, turns: int, then: Callable[[], None]) -> None:
        """Calls it after so many more turns of the loop."""
        self._at_turn = self.turns + turns, then

    def turn(self) -> None:
        self.turns += 1
        if self._at_turn is not None and self.turns >= self._at_turn[0]:
            (_, then), self._at_turn = self._at_turn, None
            then()

    def leap(self, seconds: float) -> None:
        self._now += seconds

    @property
    def is_waiting_outside(self) -> bool:
        return self._outside > 0


class _LeapingSelector(selectors.DefaultSelector):
    def __init__(self, loop: LeapingLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._loop.turn()
        leaps = timeout is not None and timeout > 0 and not self._loop.is_waiting_outside
        events = super().select(0 if leaps else timeout)
        if timeout and not events:
            self._loop.leap(timeout)
        return events


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """For the conftest of folders that have such tests, and not of all: where a loop is chosen for
    each test, what is shared by a session is begun anew for each, servers too."""
    if item.get_closest_marker("leaps"):
        return {"leaping": LeapingLoop}
    return {"usual": asyncio.new_event_loop}
