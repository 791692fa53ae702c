"""Whether and where a recording can be watched, as the player's page asks."""

import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from cefmp4.errors import CefError, TransientError, UnknownStreamError
from cefmp4.jobs.ledger import RedisLedger
from cefmp4.log import redact
from cefmp4.model.job import Job, JobKind, JobState, job_id_of
from cefmp4.model.names import is_subject, metadata_key
from cefmp4.model.stream import PROVEN_STATES, StreamState
from cefmp4.model.view import StreamView, most_telling
from cefmp4.outputs.names import MASTER, hls_prefix
from cefmp4.web.access import Access, host_of
from cefmp4.web.media import ReadableStore, look_soon
from cefmp4.web.showing import Showing, ShowState, showing_of
from cefmp4.web.tickets import Tickets

MAX_SHOWN = 500  # as many as the page shows


class Watch:
    def __init__(
        self,
        store: ReadableStore,
        ledger: RedisLedger,
        *,
        views: Callable[[], list[StreamView]],
        find: Callable[[str], Awaitable[StreamView | None]],
        access: Access,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._views = views
        self._find = find
        self._access = access

    def routes(self) -> list[web.AbstractRouteDef]:
        return [
            web.get("/api/watch", self._list),
            web.get("/api/watch/{id}", self._show),
        ]

    async def _list(self, _request: web.Request) -> web.Response:
        """The recordings of the page that can be watched now."""
        handed = [view for view in self._views() if view.state is StreamState.HANDED_OVER]
        jobs = {
            job_id_of(view.id, JobKind.HLS): view.id for view in most_telling(handed, MAX_SHOWN)
        }
        states = await self._ledger.states(list(jobs))
        ready = [jobs[job_id] for job_id, state in states.items() if state is JobState.COMPLETE]
        return web.json_response({"ready": ready})

    async def _show(self, request: web.Request) -> web.Response:
        stream_id = request.match_info["id"]
        if not is_subject(stream_id):
            raise UnknownStreamError("there is no recording of this name")
        is_published = await look_soon(self._store, hls_prefix(stream_id) + MASTER) is not None
        view, job = await self._known(stream_id, may_miss=is_published)
        if is_published:
            showing = Showing(state=ShowState.READY)
        elif view is None and job is None:
            raise UnknownStreamError("there is no recording of this name")
        else:
            showing = await self._why_not(view, job)
        told = _described(stream_id, showing, view, job)
        elsewhere = self._elsewhere(request, stream_id) if told["master"] else None
        return web.json_response(told | {"elsewhere": elsewhere})

    def _elsewhere(self, request: web.Request, stream_id: str) -> str:
        """For players that know neither token nor cookie."""
        access, host = self._access, host_of(request.headers.get("Host", ""))
        if access.token is None or access.is_free_for(host):
            return f"/media/{stream_id}/{MASTER}"
        return f"/player/{Tickets(access.token).issue(stream_id)}/{stream_id}/{MASTER}"

    async def _known(
        self, stream_id: str, *, may_miss: bool
    ) -> tuple[StreamView | None, Job | None]:
        """What is published can be watched while Redis is away."""
        try:
            job = await self._ledger.find(job_id_of(stream_id, JobKind.HLS))
            view = next((view for view in self._views() if view.id == stream_id), None)
            return view or await self._find(stream_id), job
        except TransientError:
            if may_miss:
                return None, None
            raise

    async def _why_not(self, view: StreamView | None, job: Job | None) -> Showing:
        workers = await self._ledger.workers(JobKind.HLS) if job else 0
        is_unplayable = view is not None and view.playable is False and job is None
        reason = await self._unplayable(view) if view and is_unplayable else ""
        return showing_of(view, job, workers=workers, why_unplayable=reason, now=time.time())

    async def _unplayable(self, view: StreamView) -> str:
        """The document beside the recording says why."""
        try:
            document = json.loads(await self._store.read(metadata_key(view.key)))
            return str(document.get("playable_reason") or "")
        except (CefError, ValueError, AttributeError):
            return ""


def _described(
    stream_id: str, showing: Showing, view: StreamView | None, job: Job | None
) -> dict[str, Any]:
    place, prefix = f"/media/{stream_id}/", hls_prefix(stream_id)
    result = job.result if job else None
    poster = str((result or {}).get("poster_key") or "")
    is_ready = showing.state is ShowState.READY
    return {
        "id": stream_id,
        "name": view.relpath if view else job.spec.input.name if job else stream_id,
        "state": showing.state,
        "message": redact(showing.message),
        "percent": showing.percent,
        "master": place + MASTER if is_ready else None,
        "poster": place + poster.removeprefix(prefix) if poster.startswith(prefix) else None,
        "recording": f"{place}file" if view and view.state in PROVEN_STATES else None,
    }
