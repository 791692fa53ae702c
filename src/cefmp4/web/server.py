"""The HTTP server: what it answers under which path."""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import structlog
from aiohttp import web

from cefmp4 import __version__
from cefmp4.errors import UnknownStreamError
from cefmp4.model.stream import StreamState
from cefmp4.model.view import StreamView, most_telling
from cefmp4.web import page
from cefmp4.web.access import Access
from cefmp4.web.feed import ViewFeed
from cefmp4.web.health import Health
from cefmp4.web.listener import Listener
from cefmp4.web.probes import Probes, nothing_to_measure
from cefmp4.web.questions import asked_limit, asked_state

log = structlog.get_logger()

DEFAULT_LIMIT = 500

FindView = Callable[[str], Awaitable[StreamView | None]]
Act = Callable[[str], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Actions:
    """What can be asked of a stream by its id. `find` looks where `views` does not reach."""

    find: FindView
    retry: Act
    forget: Act


class HttpServer:
    """Listens from entering to leaving. `routes` are those of other parts of the product."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        views: Callable[[], list[StreamView]],
        health: Callable[[], Health],
        actions: Actions,
        access: Access | None = None,
        routes: Sequence[web.AbstractRouteDef] = (),
        measure: Callable[[], Awaitable[None]] = nothing_to_measure,
        feed_interval_s: float = 1.0,
    ) -> None:
        self._host = host
        self._given_port = port
        self._views = views
        self._health = health
        self._actions = actions
        self._access = access
        self._routes = routes
        self._measure = measure
        self._feed_interval_s = feed_interval_s
        self._listener: Listener | None = None

    def __repr__(self) -> str:
        return f"<HttpServer {self._listener!r}>"

    @property
    def port(self) -> int:
        return self._listener.port if self._listener else 0

    async def __aenter__(self) -> Self:
        feed = ViewFeed(self._views, interval_s=self._feed_interval_s)
        self._listener = Listener(
            self._host,
            self._given_port,
            [*self._own_routes(feed), *self._routes],
            access=self._access,
            on_stop=feed.stop,
        )
        await self._listener.__aenter__()
        if self._access and not self._access.is_usable:
            log.warning(
                "nobody can use the page: set API_TOKEN", reached_at=self._access.reached_at
            )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._listener:
            await self._listener.__aexit__(kind, error, traceback)

    def _own_routes(self, feed: ViewFeed) -> list[web.AbstractRouteDef]:
        return [
            *page.routes(),
            *Probes(self._health, self._measure).routes(),
            web.get("/stats", self._stats),
            web.get("/api/streams", self._list_streams),
            web.get("/api/streams/{id}", self._show_stream),
            web.post("/api/streams/{id}/retry", self._act(self._actions.retry)),
            web.post("/api/streams/{id}/forget", self._act(self._actions.forget)),
            web.get("/events", feed.serve),
        ]

    async def _stats(self, _request: web.Request) -> web.Response:
        views, health = self._views(), self._health()
        return web.json_response(
            {
                "version": __version__,
                "live": health.is_live,
                "ready": health.is_ready,
                "reasons": health.reasons,
                "streams": dict(Counter(view.state for view in views)),
                "active_streams": sum(not view.is_ended for view in views),
                "bytes_on_disk": sum(view.size for view in views),
                "bytes_uploaded": sum(view.uploaded for view in views),
                "bytes_behind": sum(view.behind_bytes for view in views),
                "seconds_behind": max((view.behind_seconds for view in views), default=0.0),
                "bytes_per_second": sum(view.bytes_per_second for view in views),
            }
        )

    async def _list_streams(self, request: web.Request) -> web.Response:
        state, limit = asked_state(request, StreamState), asked_limit(request, DEFAULT_LIMIT)
        views = [view for view in self._views() if state is None or view.state == state]
        shown = [view.to_fields() for view in most_telling(views, limit)]
        return web.json_response({"streams": shown, "total": len(views)})

    async def _show_stream(self, request: web.Request) -> web.Response:
        stream_id = request.match_info["id"]
        view = next((view for view in self._views() if view.id == stream_id), None)
        view = view or await self._actions.find(stream_id)
        if view is None:
            raise UnknownStreamError
        return web.json_response(view.to_fields())

    def _act(self, act: Act) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            await act(request.match_info["id"])
            return web.json_response({"done": True})

        return handle
