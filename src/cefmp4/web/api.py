"""What can be asked of streams and jobs, and asked for, over HTTP."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from aiohttp import web

from cefmp4 import __version__
from cefmp4.errors import UnknownStreamError
from cefmp4.jobs.overview import fields_of, overview
from cefmp4.model.job import MOST_TELLING_FIRST, JobKind, JobState, job_id_of
from cefmp4.model.names import metadata_key
from cefmp4.model.stream import PROVEN_STATES, StreamState
from cefmp4.model.view import StreamView, most_telling, totals_of
from cefmp4.outputs.names import MASTER, RESULT, hls_prefix
from cefmp4.ports.jobs import JobDesk
from cefmp4.web.job_feed import JobFigures
from cefmp4.web.media import Find
from cefmp4.web.probes import Health

STREAMS, MOST_STREAMS = 500, 10_000  # that are told of: where nobody says how many, and at most
JOBS, MOST_JOBS = 100, 1000  # each that runs is asked for by itself
RECORDINGS, MOST_RECORDINGS = 100, 1000
MOST_PATH_CHARS = 4096

Act = Callable[[str], Awaitable[object]]
History = Callable[[str, int], Awaitable[list[StreamView]]]
S = TypeVar("S", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class StreamApi:
    """`find` knows streams that ended long ago, too."""

    views: Callable[[], list[StreamView]]
    health: Callable[[], Health]
    find: Find
    retry: Act
    forget: Act
    jobs: JobFigures

    def routes(self) -> list[web.AbstractRouteDef]:
        return [
            web.get("/stats", self._stats),
            web.get("/api/streams", self._list),
            web.get("/api/streams/{id}", self._show),
            web.post("/api/streams/{id}/retry", _done_by(self.retry)),
            web.post("/api/streams/{id}/forget", _done_by(self.forget)),
        ]

    async def _stats(self, _request: web.Request) -> web.Response:
        views, health = self.views(), self.health()
        return web.json_response(
            {
                **_standing(health),
                "bytes_on_disk": sum(view.size for view in views),
                "bytes_uploaded": sum(view.uploaded for view in views),
                "bytes_stored": sum(view.size for view in views if view.state in PROVEN_STATES),
                **totals_of(views),
                "jobs": await self.jobs.latest(),
            }
        )

    async def _list(self, request: web.Request) -> web.Response:
        state, limit = _state(request, StreamState), _limit(request, STREAMS, MOST_STREAMS)
        views = [view for view in self.views() if state is None or view.state == state]
        shown = [view.to_fields() for view in most_telling(views, limit)]
        return web.json_response({"streams": shown, "total": len(views)})

    async def _show(self, request: web.Request) -> web.Response:
        view = await self.find(request.match_info["id"])
        if view is None:
            raise UnknownStreamError
        return web.json_response(view.to_fields())


@dataclass(frozen=True, slots=True)
class RecordingApi:
    """Where what was stored of a file is. `history`: so many streams of a path, newest first."""

    bucket: str
    views: Callable[[], list[StreamView]]
    history: History
    desk: JobDesk

    def routes(self) -> list[web.AbstractRouteDef]:
        return [web.get("/api/recordings", self._list)]

    async def _list(self, request: web.Request) -> web.Response:
        path, limit = _path(request), _limit(request, RECORDINGS, MOST_RECORDINGS)
        if path is None:
            views = sorted(self.views(), key=lambda view: view.started_at, reverse=True)[:limit]
        else:
            views = await self.history(path, limit)
        jobs = {
            job_id_of(view.id, JobKind.HLS): view.id
            for view in views
            if view.state in PROVEN_STATES
        }
        complete = await self.desk.complete_of(list(jobs)) if jobs else set()
        with_hls = {jobs[job_id] for job_id in complete}
        told = [self._told(view, has_hls=view.id in with_hls) for view in views]
        return web.json_response({"bucket": self.bucket, "recordings": told})

    def _told(self, view: StreamView, *, has_hls: bool) -> dict[str, Any]:
        """Keys are null while there is nothing under them."""
        is_stored = view.state in PROVEN_STATES
        is_described = is_stored and view.state is not StreamState.STORED
        prefix = hls_prefix(view.id)
        return view.to_fields() | {
            "object_key": view.key if is_stored else None,
            "metadata_key": metadata_key(view.key) if is_described else None,
            "hls_master_key": prefix + MASTER if has_hls else None,
            "hls_result_key": prefix + RESULT if has_hls else None,
        }


@dataclass(frozen=True, slots=True)
class JobApi:
    desk: JobDesk

    def routes(self) -> list[web.AbstractRouteDef]:
        return [
            web.get("/api/jobs", self._list),
            web.get("/api/jobs/{id}", self._show),
            web.post("/api/jobs/{id}/retry", _done_by(self.desk.retry)),
            web.post("/api/jobs/{id}/cancel", _done_by(self.desk.cancel)),
            web.get("/jobs/peek", self.peek),
        ]

    async def _list(self, request: web.Request) -> web.Response:
        state, limit = _state(request, JobState), _limit(request, JOBS, MOST_JOBS)
        jobs = await self.desk.latest([state] if state else MOST_TELLING_FIRST, limit)
        counts = await self.desk.counts()
        total = counts[state] if state else sum(counts.values())
        return web.json_response({"jobs": [fields_of(job) for job in jobs], "total": total})

    async def _show(self, request: web.Request) -> web.Response:
        return web.json_response(fields_of(await self.desk.get(request.match_info["id"])))

    async def peek(self, _request: web.Request) -> web.Response:
        return web.json_response(await overview(self.desk))


def worker_routes(desk: JobDesk, health: Callable[[], Health]) -> list[web.AbstractRouteDef]:
    """What a worker tells on its own port, of all workers together. It knows no streams."""
    jobs, figures = JobApi(desk), JobFigures(desk)

    async def stats(_request: web.Request) -> web.Response:
        return web.json_response(_standing(health()) | {"jobs": await figures.latest()})

    return [web.get("/jobs/peek", jobs.peek), web.get("/stats", stats)]


def _standing(health: Health) -> dict[str, Any]:
    return {
        "version": __version__,
        "live": health.is_live,
        "ready": health.is_ready,
        "reasons": health.reasons,
    }


def _done_by(act: Act) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        await act(request.match_info["id"])
        return web.json_response({"done": True})

    return handle


def _state(request: web.Request, states: type[S]) -> S | None:
    text = request.query.get("state")
    try:
        return states(text) if text else None
    except ValueError:
        raise web.HTTPBadRequest(text=f"state must be one of {', '.join(states)}") from None


def _path(request: web.Request) -> str | None:
    path = request.query.get("path")
    if path is None:
        return None
    is_odd = "\0" in path or len(path) > MOST_PATH_CHARS
    if is_odd or any(name in ("", ".", "..") for name in path.split("/")):
        raise web.HTTPBadRequest(text="path must be one of a file, as seen from the watched folder")
    return path


def _limit(request: web.Request, usual: int, most: int) -> int:
    text = request.query.get("limit", str(usual))
    if not (text.isascii() and text.isdecimal() and len(text) < 9 and 1 <= int(text) <= most):
        raise web.HTTPBadRequest(text=f"limit must be a number from 1 to {most}")
    return int(text)
