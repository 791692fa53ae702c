"""The wish for a full look at the folder, from whoever suspects that events were lost."""

import asyncio
from collections.abc import Sequence
from enum import StrEnum

from cefmp4.tasks import comes

Renames = Sequence[tuple[str, str]]  # of folders: from, to


class RescanCause(StrEnum):
    START = "start"
    INTERVAL = "interval"
    OVERFLOW = "overflow"  # the kernel or our own buffer dropped events
    FOLDER_MOVED = "folder_moved"  # files changed their path without an event of their own
    WATCH_LIMIT = "watch_limit"  # some folders may be without a watch
    REARMED = "rearmed"  # there was no watch for a while


class RescanRequests:
    """Remembers the first cause until somebody takes it: ten wishes are one look."""

    def __init__(self) -> None:
        self._cause: RescanCause | None = None
        self._wanted = asyncio.Event()

    def __repr__(self) -> str:
        return f"<RescanRequests {self._cause}>"

    @property
    def cause(self) -> RescanCause | None:
        return self._cause

    def is_set(self) -> bool:
        return self._wanted.is_set()

    def request(self, cause: RescanCause) -> None:
        """In the event loop only."""
        self._cause = self._cause or cause
        self._wanted.set()

    def take(self) -> RescanCause | None:
        cause, self._cause = self._cause, None
        self._wanted.clear()
        return cause

    async def wait(self, timeout_s: float) -> None:
        """Until somebody wants a rescan, at most `timeout_s`."""
        await comes(self._wanted, within_s=timeout_s)
