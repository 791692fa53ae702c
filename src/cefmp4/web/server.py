"""The HTTP server: what it answers under which path."""

import errno
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from cefmp4 import __version__, metrics
from cefmp4.errors import (
    CefError,
    RefusedError,
    SettingsError,
    TransientError,
    UnknownStreamError,
)
from cefmp4.log import redact
from cefmp4.model.stream import StreamState
from cefmp4.model.view import StreamView, most_telling
from cefmp4.web.feed import ViewFeed
from cefmp4.web.guard import SECURITY_HEADERS, guard
from cefmp4.web.health import Health
from cefmp4.web.page import serve_page

DEFAULT_LIMIT = 500
MAX_LIMIT = 10_000
SHUTDOWN_S = 2.0
MAX_BODY_BYTES = 64 * 1024

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
        token: str | None = None,
        routes: Sequence[web.AbstractRouteDef] = (),
        feed_interval_s: float = 1.0,
    ) -> None:
        self._host = host
        self._given_port = port
        self._views = views
        self._health = health
        self._actions = actions
        self._token = token
        self._routes = routes
        self._feed_interval_s = feed_interval_s
        self._runner: web.AppRunner | None = None
        self.port = 0

    def __repr__(self) -> str:
        return f"<HttpServer {self._host}:{self.port or 'closed'}>"

    async def __aenter__(self) -> Self:
        feed = ViewFeed(self._views, interval_s=self._feed_interval_s)
        app = web.Application(
            middlewares=[_add_headers_and_explain, guard(self._host, self._token)],
            client_max_size=MAX_BODY_BYTES,
        )
        app.add_routes(self._own_routes(feed))
        app.add_routes(self._routes)

        async def stop_feed(_app: web.Application) -> None:
            feed.stop()

        app.on_shutdown.append(stop_feed)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S)
        await self._runner.setup()
        try:
            site = web.TCPSite(self._runner, self._host, self._given_port)
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            raise self._explained(error) from error
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._runner:
            await self._runner.cleanup()
        self.port = 0

    def _own_routes(self, feed: ViewFeed) -> list[web.AbstractRouteDef]:
        return [
            web.get("/", serve_page),
            web.get("/metrics", self._metrics),
            web.get("/livez", self._livez),
            web.get("/readyz", self._readyz),
            web.get("/healthz", self._readyz),
            web.get("/stats", self._stats),
            web.get("/api/streams", self._list_streams),
            web.get("/api/streams/{id}", self._show_stream),
            web.post("/api/streams/{id}/retry", self._act(self._actions.retry)),
            web.post("/api/streams/{id}/forget", self._act(self._actions.forget)),
            web.get("/events", feed.serve),
        ]

    def _explained(self, error: OSError) -> SettingsError:
        name, value = "PROM_PORT", str(self._given_port)
        if error.errno == errno.EADDRINUSE:
            reason = "another program listens there; choose a free port, or 0 for any"
        elif error.errno == errno.EACCES:
            reason = "we may not listen there; ports from 1024 on are free to all"
        else:
            name, value = "HTTP_HOST", self._host
            reason = f"cannot listen at this address: {error.strerror or error}"
        return SettingsError(f"{name}={value}: {reason}")

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(metrics.REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    async def _livez(self, _request: web.Request) -> web.Response:
        health = self._health()
        return _verdict(health.is_live, [f"{name} has stopped" for name in health.stalled])

    async def _readyz(self, _request: web.Request) -> web.Response:
        health = self._health()
        return _verdict(health.is_ready, health.reasons)

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
        state, limit = _state(request), _limit(request)
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


_STATUS_OF: tuple[tuple[type[CefError], int], ...] = (
    (UnknownStreamError, 404),
    (RefusedError, 409),
    (TransientError, 503),
    (CefError, 500),
)


@web.middleware
async def _add_headers_and_explain(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        response = await handler(request)
    except CefError as error:
        status = next(status for kind, status in _STATUS_OF if isinstance(error, kind))
        response = _problem(status, redact(str(error)))
    except web.HTTPError as error:
        response = _problem(error.status, error.text or error.reason)
        for name in ("Allow", "WWW-Authenticate"):
            if name in error.headers:
                response.headers[name] = error.headers[name]
    if not response.prepared:
        response.headers.update(SECURITY_HEADERS)
    return response


def _problem(status: int, reason: str) -> web.Response:
    return web.json_response({"error": reason}, status=status)


def _verdict(is_well: bool, reasons: list[str]) -> web.Response:
    body: dict[str, Any] = {"status": "ok" if is_well else "unavailable", "reasons": reasons}
    return web.Response(
        text=json.dumps(body) + "\n",
        status=200 if is_well else 503,
        content_type="application/json",
    )


def _state(request: web.Request) -> StreamState | None:
    text = request.query.get("state")
    try:
        return StreamState(text) if text else None
    except ValueError:
        raise web.HTTPBadRequest(text=f"state must be one of {', '.join(StreamState)}") from None


def _limit(request: web.Request) -> int:
    text = request.query.get("limit", str(DEFAULT_LIMIT))
    if not (text.isascii() and text.isdecimal() and len(text) < 9 and 1 <= int(text) <= MAX_LIMIT):
        raise web.HTTPBadRequest(text=f"limit must be a number from 1 to {MAX_LIMIT}")
    return int(text)
