"""Listens on one port, guarded, and explains errors to whoever asked."""

import errno
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager

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


@asynccontextmanager
async def listening(
    host: str,
    port: int,
    routes: Iterable[web.AbstractRouteDef],
    *,
    setting: str = "PROM_PORT",
    access: Access | None = None,
    on_stop: Callable[[], None] = lambda: None,
) -> AsyncIterator[int]:
    """On which port. `setting` is the name of the one that gives it; `on_stop` ends what would keep
    connections open."""
    try:
        sockets = listen(host, port)
    except OSError as error:
        raise _explained(error, host, f"{setting}={port}") from error
    complaints = Complaints()
    guard = Guard(access or Access(reached_at=host), complaints)
    app = web.Application(middlewares=[_explain, guard.check], client_max_size=MAX_BODY_BYTES)
    app.add_routes([*routes, *guard.routes()])

    async def stop(_app: web.Application) -> None:
        on_stop()

    app.on_shutdown.append(stop)
    runner = web.AppRunner(app, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    assert runner.server is not None
    door = Door(runner.server, sockets, limit=max_connections(), complaints=complaints)
    door.open()
    try:
        yield sockets[0].getsockname()[1]
    finally:
        await door.close()
        await runner.cleanup()
        door.abandon()


def _explained(error: OSError, host: str, place: str) -> SettingsError:
    if error.errno == errno.EADDRINUSE:
        reason = "another program listens there; choose a free port, or 0 for any"
    elif error.errno == errno.EACCES:
        reason = "we may not listen there; ports from 1024 on are free to all"
    else:
        place = f"HTTP_HOST={host}"
        reason = f"cannot listen at this address: {error.strerror or error}"
    return SettingsError(f"{place}: {reason}")


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
