"""Whether and where a recording can be watched, as the player's page asks, and what a person is
told while it cannot."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from aiohttp import web

from cefmp4.config.page import PageSettings
from cefmp4.errors import CefError, UnknownStreamError
from cefmp4.log import redact
from cefmp4.model.job import FailReason, Job, JobKind, job_id_of
from cefmp4.model.names import is_subject, metadata_key
from cefmp4.model.stream import PROVEN_STATES, StreamState
from cefmp4.model.view import StreamView, most_telling
from cefmp4.outputs.names import MASTER, hls_prefix
from cefmp4.ports.jobs import JobDesk
from cefmp4.ports.store import ObjectStore
from cefmp4.web.access import host_of, is_free_for
from cefmp4.web.credentials import ticket_for
from cefmp4.web.media import Find, look_soon

MAX_SHOWN = 500  # as many as the page shows


class ShowState(StrEnum):
    READY = "ready"
    WAITING = "waiting"  # worth asking again
    NEVER = "never"  # unless somebody does something about it


@dataclass(frozen=True, slots=True, kw_only=True)
class Showing:
    state: ShowState
    message: str = ""
    percent: float | None = None


@dataclass(frozen=True, slots=True)
class Watch:
    store: ObjectStore
    desk: JobDesk
    views: Callable[[], list[StreamView]]
    find: Find
    settings: PageSettings

    def routes(self) -> list[web.AbstractRouteDef]:
        return [
            web.get("/api/watch", self._list),
            web.get("/api/watch/{id}", self._show),
        ]

    async def _list(self, _request: web.Request) -> web.Response:
        """The recordings of the page that can be watched now."""
        handed = [view for view in self.views() if view.state is StreamState.HANDED_OVER]
        jobs = {
            job_id_of(view.id, JobKind.HLS): view.id for view in most_telling(handed, MAX_SHOWN)
        }
        complete = await self.desk.complete_of(list(jobs))
        ready = [stream_id for job_id, stream_id in jobs.items() if job_id in complete]
        return web.json_response({"ready": ready})

    async def _show(self, request: web.Request) -> web.Response:
        stream_id = request.match_info["id"]
        if not is_subject(stream_id):
            raise UnknownStreamError("there is no recording of this name")
        is_published = await look_soon(self.store, hls_prefix(stream_id) + MASTER) is not None
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
        token, host = self.settings.token, host_of(request.headers.get("Host", ""))
        if token is None or is_free_for(self.settings, host):
            return f"/media/{stream_id}/{MASTER}"
        return f"/player/{ticket_for(stream_id, token, time.time())}/{stream_id}/{MASTER}"

    async def _known(
        self, stream_id: str, *, may_miss: bool
    ) -> tuple[StreamView | None, Job | None]:
        """What is published can be watched while Redis or Temporal is away."""
        try:
            job = await self.desk.find(job_id_of(stream_id, JobKind.HLS))
            return await self.find(stream_id), job
        except CefError:
            if may_miss:
                return None, None
            raise

    async def _why_not(self, view: StreamView | None, job: Job | None) -> Showing:
        workers = (await self.desk.queue(JobKind.HLS)).workers if job else 0
        is_unplayable = view is not None and view.playable is False and job is None
        reason = await self._unplayable(view) if view and is_unplayable else ""
        return showing_of(view, job, workers=workers, why_unplayable=reason, now=time.time())

    async def _unplayable(self, view: StreamView) -> str:
        """The document beside the recording says why."""
        try:
            document = json.loads(await self.store.read(metadata_key(view.key)))
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


def showing_of(
    view: StreamView | None, job: Job | None, *, workers: int, why_unplayable: str, now: float
) -> Showing:
    """Of a recording whose HLS is not there. One of `view` and `job` is known; `workers`: how many
    live that could do the job."""
    if job is not None:
        return _of_job(job, workers, now)
    assert view is not None
    if view.playable is False:
        return _never(f"This recording cannot be played: {_clause(why_unplayable)}.")
    if view.state is StreamState.FAILED:
        return _never(f"This recording could not be stored: {_clause(view.reason)}.")
    if view.state is StreamState.DROPPED:
        return _never("The file vanished before anything of it was stored.")
    if view.state is StreamState.HANDED_OVER:
        return _never(
            "Nothing is known of a job that makes HLS of this recording. "
            f"“cefmp4 jobs submit {view.id}” makes one."
        )
    if view.state is StreamState.DESCRIBED:
        return _never("No HLS is made of recordings here (HANDOVER_JOBS).")
    if view.state in PROVEN_STATES:
        return _waiting("The recording is stored; its HLS comes next.")
    return _waiting("The recording is still being stored; its HLS is made after that.")


def _of_job(job: Job, workers: int, now: float) -> Showing:
    if job.is_running:
        if job.progress is None:
            return _waiting("The HLS is being made.")
        return _waiting(f"The HLS is being made: {job.progress.percent:.0f} %.", job)
    if job.is_queued:
        return _waiting(_why_queued(job, workers, now))
    if job.is_complete:
        return _never("The HLS was made, but it is not in the bucket any more.")
    if job.reason is FailReason.CANCELLED:
        return _never("The making of the HLS was cancelled.")
    return _never(f"This recording cannot be played: {_clause(job.error)}.")


def _why_queued(job: Job, workers: int, now: float) -> str:
    if not workers:
        return (
            "The HLS waits for a worker, and no worker is running. "
            "“cefmp4 worker” starts one; “cefmp4 up” has its own."
        )
    if job.due_at > now and job.error:
        left_s = job.due_at - now
        return f"The HLS is tried again in {left_s:.0f} s. The last try: {_clause(job.error)}."
    return "The HLS waits for its turn."


def _clause(error: str) -> str:
    return error.strip().rstrip(".") or "no reason is known"


def _waiting(message: str, job: Job | None = None) -> Showing:
    percent = job.progress.percent if job and job.progress else None
    return Showing(state=ShowState.WAITING, message=message, percent=percent)


def _never(message: str) -> Showing:
    return Showing(state=ShowState.NEVER, message=message)
