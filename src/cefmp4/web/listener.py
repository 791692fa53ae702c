"""Listens on one port from entering to leaving, guarded, and explains errors to whoever asked."""

import errno
from collections.abc import Awaitable, Callable, Iterable
from types import TracebackType
from typing import Self

from aiohttp import web

from cefmp4.errors import (
    AccessDeniedError,
    BucketMissingError,
    CefError,
    RefusedError,
    SettingsError,
    TransientError,
    UnknownJobError,
    UnknownStreamError,
)
from cefmp4.log import redact
from cefmp4.web.guard import SECURITY_HEADERS, guard

SHUTDOWN_S = 2.0
MAX_BODY_BYTES = 64 * 1024


class Listener:
    """`setting` is the name of the one that gives the port; `on_stop` ends what would keep
    connections open."""

    def __init__(
        self,
        host: str,
        port: int,
        routes: Iterable[web.AbstractRouteDef],
        *,
        setting: str = "PROM_PORT",
        token: str | None = None,
        on_stop: Callable[[], None] = lambda: None,
    ) -> None:
        self._host = host
        self._given_port = port
        self._routes = routes
        self._setting = setting
        self._token = token
        self._on_stop = on_stop
        self._runner: web.AppRunner | None = None
        self.port = 0

    def __repr__(self) -> str:
        return f"<Listener {self._host}:{self.port or 'closed'}>"

    async def __aenter__(self) -> Self:
        app = web.Application(
            middlewares=[_add_headers_and_explain, guard(self._host, self._token)],
            client_max_size=MAX_BODY_BYTES,
        )
        app.add_routes(self._routes)

        async def stop(_app: web.Application) -> None:
            self._on_stop()

        app.on_shutdown.append(stop)
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

    def _explained(self, error: OSError) -> SettingsError:
        name, value = self._setting, str(self._given_port)
        if error.errno == errno.EADDRINUSE:
            reason = "another program listens there; choose a free port, or 0 for any"
        elif error.errno == errno.EACCES:
            reason = "we may not listen there; ports from 1024 on are free to all"
        else:
            name, value = "HTTP_HOST", self._host
            reason = f"cannot listen at this address: {error.strerror or error}"
        return SettingsError(f"{name}={value}: {reason}")


_STATUS_OF: tuple[tuple[type[CefError], int], ...] = (
    (UnknownStreamError, 404),
    (UnknownJobError, 404),
    (RefusedError, 409),
    (TransientError, 503),
    (AccessDeniedError, 503),  # an operator can heal it
    (BucketMissingError, 503),
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
        for name, value in SECURITY_HEADERS.items():
            response.headers.setdefault(name, value)
    return response


def _problem(status: int, reason: str) -> web.Response:
    return web.json_response({"error": reason}, status=status)
