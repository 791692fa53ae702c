"""What can be asked of jobs, and asked for, over HTTP."""

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from cefmp4.jobs.ledger import RedisLedger
from cefmp4.jobs.overview import overview
from cefmp4.log import redact
from cefmp4.model.job import MOST_TELLING_FIRST, Job, JobState
from cefmp4.web.questions import asked_limit, asked_state

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000  # each is read from Redis by itself


class JobApi:
    """Reads the ledger. `retry` goes through the queue, which tells a worker at once."""

    def __init__(self, ledger: RedisLedger, *, retry: Callable[[str], Awaitable[None]]) -> None:
        self._ledger = ledger
        self._retry_job = retry

    def routes(self) -> list[web.AbstractRouteDef]:
        return [
            web.get("/api/jobs", self._list),
            web.get("/api/jobs/{id}", self._show),
            web.post("/api/jobs/{id}/retry", self._retry),
            web.post("/api/jobs/{id}/cancel", self._cancel),
            web.get("/jobs/peek", self._peek),
        ]

    async def _list(self, request: web.Request) -> web.Response:
        state = asked_state(request, JobState)
        limit = asked_limit(request, DEFAULT_LIMIT, MAX_LIMIT)
        jobs = await self._ledger.latest([state] if state else MOST_TELLING_FIRST, limit)
        counts = await self._ledger.counts()
        total = counts[state] if state else sum(counts.values())
        return web.json_response({"jobs": [_shown(job) for job in jobs], "total": total})

    async def _show(self, request: web.Request) -> web.Response:
        return web.json_response(_shown(await self._ledger.get(request.match_info["id"])))

    async def _peek(self, _request: web.Request) -> web.Response:
        return web.json_response(await overview(self._ledger))

    async def _retry(self, request: web.Request) -> web.Response:
        await self._retry_job(request.match_info["id"])
        return web.json_response({"done": True})

    async def _cancel(self, request: web.Request) -> web.Response:
        await self._ledger.cancel(request.match_info["id"])
        return web.json_response({"done": True})


def _shown(job: Job) -> dict[str, Any]:
    """Error texts come from ffmpeg and servers; such as we show may name a signed address."""
    return job.to_fields() | {"error": redact(job.error)}
