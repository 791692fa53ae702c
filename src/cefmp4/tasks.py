"""Ends tasks for sure."""

import asyncio
from collections.abc import Iterable
from typing import Any

# Longer than anything does in answer to a cancel.
CANCEL_AGAIN_S = 5.0


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
