"""Listens on one port from entering to leaving, guarded, and explains errors to whoever asked."""

import errno
from collections.abc import Awaitable, Callable, Iterable
from types import TracebackType
from typing import Self

from aiohttp import web

from cefmp4 import descriptors
from cefmp4.errors import CefError, SettingsError
from cefmp4.web.access import Access
from cefmp4.web.answers import problem_of, problem_of_http
from cefmp4.web.complaints import Complaints
from cefmp4.web.connection import Connection
from cefmp4.web.door import Door, listen
from cefmp4.web.guard import Guard

SHUTDOWN_S = 2.0
MAX_BODY_BYTES = 64 * 1024
MAX_CONNECTIONS = 256  # or a quarter of what the process may open: the recordings need the rest


def max_connections() -> int:
    return min(MAX_CONNECTIONS, descriptors.raise_limit() // 4)


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
        access: Access | None = None,
        on_stop: Callable[[], None] = lambda: None,
    ) -> None:
        self._host = host
        self._given_port = port
        self._routes = routes
        self._setting = setting
        self._complaints = Complaints()
        self.guard = Guard(access or Access(reached_at=host), self._complaints)
        self._on_stop = on_stop
        self._runner: web.AppRunner | None = None
        self._door: Door | None = None
        self.port = 0

    def __repr__(self) -> str:
        return f"<Listener {self._host}:{self.port or 'closed'}>"

    async def __aenter__(self) -> Self:
        try:
            sockets = listen(self._host, self._given_port)
        except OSError as error:
            raise self._explained(error) from error
        self.port = sockets[0].getsockname()[1]
        app = web.Application(
            middlewares=[_explain, self.guard.check], client_max_size=MAX_BODY_BYTES
        )
        app.add_routes([*self._routes, *self.guard.routes()])

        async def stop(_app: web.Application) -> None:
            self._on_stop()

        app.on_shutdown.append(stop)
        self._runner = web.AppRunner(app, shutdown_timeout=SHUTDOWN_S)
        await self._runner.setup()
        assert self._runner.server is not None
        self._door = Door(
            self._runner.server, sockets, limit=max_connections(), complaints=self._complaints
        )
        await self._door.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._door and self._runner:
            await self._door.__aexit__(kind, error, traceback)
            await self._runner.cleanup()
            self._door.abandon()
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


@web.middleware
async def _explain(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    if isinstance(request.protocol, Connection):
        request.protocol.begin()
    try:
        return await handler(request)
    except CefError as error:
        return problem_of(error)
    except web.HTTPError as error:
        return problem_of_http(error)
