"""The end of a process at a chosen call, as by a kill -9: what it asks from then on reaches nobody,
and no code of it goes on. What happened before has happened."""

import asyncio
import inspect
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any


class Death:
    """When it comes: before or after the nth call of an operation takes effect."""

    def __init__(self) -> None:
        self.calls: Counter[tuple[str, str]] = Counter()
        self.came = asyncio.Event()
        self._comes_at: tuple[str, str, str, int] | None = None

    def comes_at(self, moment: str, port: str, operation: str, nth: int) -> None:
        self._comes_at = moment, port, operation, nth

    def through(self, port: str, behind: object) -> Any:
        """The port as a process has it that may die."""
        return _Mortal(self, port, behind)

    def begin_anew(self) -> None:
        """Another process; this death does not come twice."""
        self.came.clear()
        self._comes_at = None

    async def before(self, port: str, operation: str) -> int:
        if self.came.is_set():
            await _for_ever()
        self.calls[port, operation] += 1
        nth = self.calls[port, operation]
        await asyncio.sleep(0)
        await self._pass("before", port, operation, nth)
        return nth

    async def after(self, port: str, operation: str, nth: int) -> None:
        await self._pass("after", port, operation, nth)

    async def _pass(self, *here: str | int) -> None:
        if self._comes_at == here:
            self.came.set()
        if self.came.is_set():
            await _for_ever()


class _Mortal:
    def __init__(self, death: Death, port: str, behind: object) -> None:
        self._death = death
        self._port = port
        self._behind = behind

    def __getattr__(self, name: str) -> Any:
        what = getattr(self._behind, name)
        if inspect.isasyncgenfunction(what):
            return lambda *words, **named: self._listed(name, what(*words, **named))
        if inspect.iscoroutinefunction(what):
            return lambda *words, **named: self._asked(name, lambda: what(*words, **named))
        return what

    async def _asked(self, name: str, ask: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        nth = await self._death.before(self._port, name)
        answer = await ask()
        await self._death.after(self._port, name, nth)
        return answer

    async def _listed(self, name: str, answers: AsyncIterator[Any]) -> AsyncIterator[Any]:
        nth = await self._death.before(self._port, name)
        async for answer in answers:
            yield answer
        await self._death.after(self._port, name, nth)


async def _for_ever() -> None:
    await asyncio.Event().wait()
