"""Server-sent events: what changed in streams and jobs, about once a second, for a bounded number
of listeners. Each holds only what it was sent last, so a slow one costs no memory and is let go."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

from aiohttp import web

from cefmp4.model.view import StreamView, most_telling
from cefmp4.tasks import comes
from cefmp4.web.answers import SECURITY_HEADERS
from cefmp4.web.job_feed import JobFeed, JobsSeen
from cefmp4.web.listener import STOPPING

MAX_LISTENERS = 50
MAX_VIEWS = 500
INTERVAL_S = 1.0
QUIET_BEATS = 15  # then a comment keeps proxies from closing the connection
SLOW_S = 20.0
LASTS_S = 3600.0  # then it asks again, and whether it may is looked at again
STILL_HERE = b": still here\n\n"
EVENT_HEADERS = {"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}


class Feed:
    def __init__(
        self,
        views: Callable[[], list[StreamView]],
        jobs: JobFeed,
        *,
        interval_s: float = INTERVAL_S,
    ) -> None:
        self._views = views
        self._jobs = jobs
        self._interval_s = interval_s
        self._listeners = 0

    def routes(self) -> list[web.AbstractRouteDef]:
        return [web.get("/events", self._serve)]

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if self._listeners >= MAX_LISTENERS:
            raise web.HTTPServiceUnavailable(text="too many listeners")
        self._listeners += 1
        try:
            response = web.StreamResponse(headers=SECURITY_HEADERS | EVENT_HEADERS)
            await response.prepare(request)
            await self._send_changes(response, request.app[STOPPING])
            return response
        finally:
            self._listeners -= 1
            if not self._listeners:
                await self._jobs.rest()

    async def _send_changes(self, response: web.StreamResponse, stopping: asyncio.Event) -> None:
        sent: dict[str, StreamView] = {}
        jobs_sent: JobsSeen | None = None
        beats, ends_at = 0, time.monotonic() + LASTS_S
        try:
            while not stopping.is_set() and time.monotonic() < ends_at:
                now = {view.id: view for view in most_telling(self._views(), MAX_VIEWS)}
                jobs = self._jobs.latest()
                said = _said("streams", _difference(sent, now, is_first=beats == 0))
                said += _said("jobs", _job_difference(jobs_sent, jobs))
                if said or beats % QUIET_BEATS == 0:
                    async with asyncio.timeout(SLOW_S):
                        await response.write(said or STILL_HERE)
                sent, jobs_sent, beats = now, jobs, beats + 1
                await comes(stopping, within_s=self._interval_s)
        except (ConnectionError, TimeoutError):
            return  # it has gone, or does not keep up: a browser connects again by itself


def _difference(
    before: dict[str, StreamView], now: dict[str, StreamView], *, is_first: bool
) -> dict[str, list[Any]] | None:
    """The first event has everything, so that a page that connected again can start over."""
    changed = [view.to_fields() for view in now.values() if before.get(view.id) != view]
    gone = [stream_id for stream_id in before if stream_id not in now]
    return {"changed": changed, "gone": gone} if changed or gone or is_first else None


def _job_difference(before: JobsSeen | None, now: JobsSeen | None) -> dict[str, Any] | None:
    """`order` names all that are shown; what it does not name is gone."""
    if now is None or now == before:
        return None
    known = before.jobs if before else {}
    return {
        "changed": [job for job_id, job in now.jobs.items() if known.get(job_id) != job],
        "order": list(now.jobs),
        "total": now.total,
        "error": now.error,
    }


def _said(name: str, event: dict[str, Any] | None) -> bytes:
    if event is None:
        return b""
    data = json.dumps(event, separators=(",", ":"))
    return f"event: {name}\ndata: {data}\n\n".encode()
