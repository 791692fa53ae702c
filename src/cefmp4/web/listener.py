"""Listens on one port, guarded, and explains errors to whoever asked."""

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import ExitStack, asynccontextmanager

from aiohttp import web

from cefmp4 import descriptors
from cefmp4.config.page import PageSettings
from cefmp4.errors import CefError, SettingsError
from cefmp4.web.answers import problem_of, problem_of_http
from cefmp4.web.door import Complaints, Connection, Door
from cefmp4.web.guard import Guard

STOPPING = web.AppKey("stopping", asyncio.Event)  # ends answers that go on by themselves
SHUTDOWN_S = 2.0
MAX_BODY_BYTES = 64 * 1024
MAX_CONNECTIONS = 256  # or a quarter of what the process may open: the recordings need the rest


def max_connections() -> int:
    return min(MAX_CONNECTIONS, descriptors.raise_limit() // 4)


@asynccontextmanager
async def listening(
    settings: PageSettings,
    port: int,
    routes: Iterable[web.AbstractRouteDef],
    *,
    setting: str = "PROM_PORT",
    has_page: bool = True,
) -> AsyncIterator[int]:
    """On which port. `setting` is the name of the one that gives it; `has_page`: one may log in."""
    try:
        sockets = _listen(settings.http_host, port)
    except OSError as error:
        raise _explained(error, settings.http_host, f"{setting}={port}") from error
    complaints = Complaints()
    guard = Guard(settings, complaints, has_page=has_page)
    app = web.Application(middlewares=[_explain, guard.check], client_max_size=MAX_BODY_BYTES)
    app.add_routes([*routes, *guard.routes()])
    app[STOPPING] = asyncio.Event()
    runner = web.AppRunner(app, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    assert runner.server is not None
    door = Door(runner.server, sockets, limit=max_connections(), complaints=complaints)
    door.open()
    try:
        yield sockets[0].getsockname()[1]
    finally:
        app[STOPPING].set()
        await door.close()
        await runner.cleanup()
        door.abandon()


def _listen(host: str, port: int) -> list[socket.socket]:
    """On every address that the name has. Raises OSError."""
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets = []
    with ExitStack() as opened:
        for family, address in dict.fromkeys((entry[0], entry[4]) for entry in found):
            one = socket.create_server(address, family=family, backlog=128)
            sockets.append(opened.enter_context(one))
            one.setblocking(False)
        opened.pop_all()
    return sockets


def _explained(error: OSError, host: str, place: str) -> SettingsError:
    if error.errno == errno.EADDRINUSE:
        reason = "another program listens there; choose a free port, or 0 for any"
    elif error.errno == errno.EACCES:
        reason = "we may not listen there; ports from 1024 on are free to all"
    else:
        place = f"HTTP_HOST={host}"
        why = (error.strerror or str(error)).partition(" (while")[0]  # Python names it again
        reason = f"cannot listen at this address: {why}"
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
