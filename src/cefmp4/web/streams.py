"""What can be asked of streams, and asked for, over HTTP."""

from collections.abc import Awaitable, Callable

from aiohttp import web

from cefmp4 import __version__
from cefmp4.errors import UnknownStreamError
from cefmp4.model.stream import StreamState
from cefmp4.model.view import StreamView, most_telling, totals_of
from cefmp4.web.probes import Health
from cefmp4.web.questions import asked_limit, asked_state

DEFAULT_LIMIT = 500

Act = Callable[[str], Awaitable[None]]


class StreamApi:
    """`find` looks a stream up where `views` does not reach."""

    def __init__(
        self,
        views: Callable[[], list[StreamView]],
        health: Callable[[], Health],
        *,
        find: Callable[[str], Awaitable[StreamView | None]],
        retry: Act,
        forget: Act,
    ) -> None:
        self._views = views
        self._health = health
        self._find = find
        self._retry = retry
        self._forget = forget

    def routes(self) -> list[web.AbstractRouteDef]:
        return [
            web.get("/stats", self._stats),
            web.get("/api/streams", self._list),
            web.get("/api/streams/{id}", self._show),
            web.post("/api/streams/{id}/retry", _done_by(self._retry)),
            web.post("/api/streams/{id}/forget", _done_by(self._forget)),
        ]

    async def _stats(self, _request: web.Request) -> web.Response:
        views, health = self._views(), self._health()
        return web.json_response(
            {
                "version": __version__,
                "live": health.is_live,
                "ready": health.is_ready,
                "reasons": health.reasons,
                "bytes_on_disk": sum(view.size for view in views),
                "bytes_uploaded": sum(view.uploaded for view in views),
                **totals_of(views),
            }
        )

    async def _list(self, request: web.Request) -> web.Response:
        state, limit = asked_state(request, StreamState), asked_limit(request, DEFAULT_LIMIT)
        views = [view for view in self._views() if state is None or view.state == state]
        shown = [view.to_fields() for view in most_telling(views, limit)]
        return web.json_response({"streams": shown, "total": len(views)})

    async def _show(self, request: web.Request) -> web.Response:
        stream_id = request.match_info["id"]
        view = next((view for view in self._views() if view.id == stream_id), None)
        view = view or await self._find(stream_id)
        if view is None:
            raise UnknownStreamError
        return web.json_response(view.to_fields())


def _done_by(act: Act) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        await act(request.match_info["id"])
        return web.json_response({"done": True})

    return handle
