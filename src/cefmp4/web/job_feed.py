"""What is told of jobs again and again, asked of the engine once for all who want to know."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from cefmp4.errors import CefError
from cefmp4.jobs.overview import fields_of, figures
from cefmp4.log import redact
from cefmp4.model.job import MOST_TELLING_FIRST
from cefmp4.ports.jobs import JobDesk
from cefmp4.tasks import cancel_all

MAX_JOBS = 50  # as many as the page shows
LOOK_EVERY_S = 2.0


@dataclass(frozen=True, slots=True)
class JobsSeen:
    """`jobs` in the order in which they are shown. `error`: why nothing newer is known."""

    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    total: int = 0
    error: str = ""


class JobFeed:
    """Asks only while somebody wants to know, and holds nobody up: what was seen last is told
    until the engine has answered."""

    def __init__(self, desk: JobDesk, *, every_s: float = LOOK_EVERY_S) -> None:
        self._desk = desk
        self._every_s = every_s
        self._seen: JobsSeen | None = None
        self._looked_at = 0.0
        self._looking: asyncio.Task[None] | None = None

    def latest(self) -> JobsSeen | None:
        """None: nobody was asked yet."""
        is_due = time.monotonic() - self._looked_at >= self._every_s
        if is_due and (self._looking is None or self._looking.done()):
            self._looked_at = time.monotonic()
            self._looking = asyncio.create_task(self._look(), name="look at the jobs")
        return self._seen

    async def rest(self) -> None:
        """Nobody wants to know any more. What was seen is soon of no use."""
        if self._looking is not None:
            await cancel_all([self._looking])
        self._looking, self._seen, self._looked_at = None, None, 0.0

    async def _look(self) -> None:
        try:
            jobs = await self._desk.latest(MOST_TELLING_FIRST, MAX_JOBS)
            total = sum((await self._desk.counts()).values())
        except CefError as error:
            seen = self._seen or JobsSeen()
            self._seen = JobsSeen(seen.jobs, seen.total, redact(str(error)))
        else:
            self._seen = JobsSeen({job.id: fields_of(job) for job in jobs}, total)


class JobFigures:
    """They cost a handful of requests; whoever asks often gets the same again."""

    def __init__(self, desk: JobDesk) -> None:
        self._desk = desk
        self._asking = asyncio.Lock()
        self._asked_at = 0.0
        self._known: dict[str, Any] | None = None

    async def latest(self) -> dict[str, Any]:
        async with self._asking:
            if self._known is None or time.monotonic() - self._asked_at >= LOOK_EVERY_S:
                try:
                    self._known = await figures(self._desk)
                except CefError as error:  # the streams are worth telling of without
                    self._known = {"error": redact(str(error))}
                self._asked_at = time.monotonic()
            return self._known
