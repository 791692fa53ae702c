"""Takes connections, never more than a limit that leaves descriptors for the recordings. Who comes
when there is no room takes the place of a connection that waits: idle ones first, of the address
that has the most. So a flood costs the flood, and a probe that asks at once is answered."""

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from cefmp4 import metrics
from cefmp4.descriptors import RAN_OUT
from cefmp4.web import answers

log = structlog.get_logger()

PAUSE_S = 0.5  # then descriptors are looked for again
SWEEP_S = 5.0  # a closed connection has so long, and once more, for what it did not take yet
# A request's head must be there so soon after the connection, or after the answer before it; an
# unused connection is kept as long.
HEAD_S = 30.0
LINGER_S = 2.0  # for a body that nobody asked for
SLOW_S = 20.0  # for an answer that is not sent piece by piece
COMPLAIN_S = 10.0
_LONGEST_DETAIL = 80
# The client went away or garbled its body: that is its matter.
_OF_THE_CLIENT = (HttpProcessingError, web.RequestPayloadError, ConnectionError)
_TOLD = {
    "malformed": "a request was no HTTP",
    "host": "a request named a host that is not ours",
    "cross_site": "a request came from another site's page",
    "token": "a request had a wrong token",
    "full": "a connection was turned away: there are too many",
    "slow": "a connection was cut off: it was too slow",
    "descriptors": "no connection can be taken: the process has run out of descriptors",
}


class Complaints:
    """What was refused, and why: each is counted. Anybody can make us complain; so a line is
    written for the first, and later one that says how many there were meanwhile."""

    def __init__(self) -> None:
        self._quiet_until = dict.fromkeys(metrics.HTTP_REFUSALS, 0.0)
        self._untold = dict.fromkeys(metrics.HTTP_REFUSALS, 0)

    def note(self, reason: str, address: str, detail: str = "") -> None:
        metrics.http_refused.labels(reason).inc()
        now = time.monotonic()
        if now < self._quiet_until[reason]:
            self._untold[reason] += 1
            return
        known: dict[str, object] = {"address": address}
        if detail:
            known["reason"] = detail[:_LONGEST_DETAIL]
        if self._untold[reason]:
            known["alike_before"] = self._untold[reason]
        self._quiet_until[reason] = now + COMPLAIN_S
        self._untold[reason] = 0
        log.warning(_TOLD[reason], **known)


class Connection(web.RequestHandler):
    """Every answer leaves through it, hardened and within a limit of time, and what is no HTTP is
    one line of the log instead of a traceback. `since`: when it began to do what it does, wait for
    a request or answer one."""

    __slots__ = ("_door", "address", "is_answering", "is_stalled", "since")

    def __init__(self, server: web.Server, door: "Door", address: str) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=HEAD_S,
            lingering_time=LINGER_S,
            auto_decompress=False,  # nobody has reason to send us what unfolds
            access_log=None,  # type: ignore[arg-type]
        )
        self._door = door
        self.address = address
        self.is_answering = False
        self.is_stalled = False
        self.since = time.monotonic()

    def begin(self) -> None:
        self.is_answering, self.since = True, time.monotonic()

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._door.forget(self)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.is_stalled = True

    def resume_writing(self) -> None:
        super().resume_writing()
        self.is_stalled = False

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        if isinstance(resp, web.HTTPError):  # raised before any code of ours ran
            resp = answers.problem_of_http(resp)
        if not resp.prepared:
            answers.harden(resp)
        try:
            async with asyncio.timeout(SLOW_S):
                return await super().finish_response(request, resp, start_time)
        except TimeoutError:
            self._door.cut_off(self)
            return resp, True
        finally:
            self.is_answering, self.since = False, time.monotonic()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        response = self._told(request, status, exc, message)
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun: it can only be cut off")
        response.force_close()
        return response

    def _told(
        self, request: web.BaseRequest, status: int, error: BaseException | None, message: Any
    ) -> web.Response:
        if status == 400 or isinstance(error, _OF_THE_CLIENT):
            detail = str(message or error or "").partition("\n")[0]
            self._door.complaints.note("malformed", self.address, detail)
            return answers.problem(400, "this is no request that can be understood")
        if isinstance(error, OSError) and error.errno in RAN_OUT:
            self._door.complaints.note("descriptors", self.address)
            return answers.problem(503, "there are too many open files: try again")
        log.error("a request was not answered", url_path=request.path, exc_info=error)
        return answers.problem(status, "this went wrong here; the log says more")


class Door:
    def __init__(
        self, server: web.Server, sockets: Iterable[socket.socket], *, limit: int,
        complaints: Complaints,
    ) -> None:  # fmt: skip
        self._server = server
        self._sockets = list(sockets)
        self._limit = limit
        self.complaints = complaints
        self._inside: dict[Connection, asyncio.Transport] = {}
        self._closing: set[Connection] = set()
        self._tasks: list[asyncio.Task[None]] = []

    def __repr__(self) -> str:
        return f"<Door {len(self._inside)} of {self._limit}>"

    def open(self) -> None:
        loops = [self._accept(listening) for listening in self._sockets]
        self._tasks = [asyncio.create_task(loop, name="http") for loop in [*loops, self._sweep()]]

    async def close(self) -> None:
        """To who comes now; who is inside may still get an answer."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for listening in self._sockets:
            listening.close()

    def abandon(self) -> None:
        """At the end: who has not taken its answer by now does not get it."""
        for transport in list(self._inside.values()):
            transport.abort()

    def forget(self, connection: Connection) -> None:
        self._inside.pop(connection, None)
        self._closing.discard(connection)

    def cut_off(self, connection: Connection) -> None:
        self.complaints.note("slow", connection.address)
        self._drop(connection)

    def _drop(self, connection: Connection) -> None:
        transport = self._inside.get(connection)
        self.forget(connection)
        if transport is not None:
            transport.abort()

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                peer, address = await loop.sock_accept(listening)
            except ConnectionAbortedError:
                continue  # it had gone before we came
            except OSError as error:
                if error.errno in RAN_OUT:
                    self.complaints.note("descriptors", "")
                    for _ in range(len(self._inside) // 2):
                        self._make_room()  # those who work need it more
                await asyncio.sleep(PAUSE_S)
                continue
            try:
                await self._admit(peer, str(address[0]))
            except Exception:
                log.exception("a connection could not be taken")
                peer.close()

    async def _admit(self, peer: socket.socket, address: str) -> None:
        if len(self._inside) >= self._limit and not self._make_room():
            self.complaints.note("full", address)
            peer.close()
            return
        connection = Connection(self._server, self, address)
        try:
            transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection, peer
            )
        except OSError:
            peer.close()
            return
        if not transport.is_closing():
            self._inside[connection] = transport

    def _make_room(self) -> bool:
        waiting = [one for one in self._inside if not one.is_answering]
        waiting = waiting or [one for one in self._inside if one.is_stalled]
        if not waiting:
            return False
        crowd = Counter(one.address for one in self._inside)
        victim = max(waiting, key=lambda one: (crowd[one.address], -one.since))
        self.complaints.note("full", victim.address)
        self._drop(victim)
        return True

    async def _sweep(self) -> None:
        """A peer that reads nothing would keep a closed connection open for ever."""
        while True:
            await asyncio.sleep(SWEEP_S)
            for connection in self._closing & self._inside.keys():
                self.cut_off(connection)
            self._closing = {one for one, at in self._inside.items() if at.is_closing()}
