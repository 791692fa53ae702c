"""Begins tasks that inherit nothing, and ends tasks for sure."""

import asyncio
import contextvars
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")

# Longer than anything does in answer to a cancel.
CANCEL_AGAIN_S = 5.0


def apart(work: Coroutine[Any, Any, T], *, name: str) -> "asyncio.Task[T]":
    """A task for one stream, or for what outlives the stream that asked for it. A task inherits
    what the one that begins it has bound for its log lines, the ids above all; this one does not,
    and what it binds is its own."""
    return asyncio.create_task(work, name=name, context=contextvars.Context())


async def cancel_all(
    tasks: Iterable["asyncio.Task[Any]"], *, again_s: float = CANCEL_AGAIN_S
) -> None:
    """Returns when all have ended, however. A library may swallow a cancel that meets the very
    answer it waits for, as asyncio.wait_for does before Python 3.12; then it comes again."""
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=again_s)
