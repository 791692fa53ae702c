"""Takes connections, never more than a limit that leaves descriptors for the recordings. Who comes
when there is no room takes the place of a connection that waits: idle ones first, of the address
that has the most. So a flood costs the flood, and a probe that asks at once is answered."""

import asyncio
import socket
from collections import Counter
from collections.abc import Iterable

import structlog
from aiohttp import web

from cefmp4.descriptors import RAN_OUT
from cefmp4.web.complaints import Complaints
from cefmp4.web.connection import Connection

log = structlog.get_logger()

PAUSE_S = 0.5  # then descriptors are looked for again
SWEEP_S = 5.0  # a closed connection has so long, and once more, for what it did not take yet


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


def listen(host: str, port: int) -> list[socket.socket]:
    """On every address that the name has. Raises OSError."""
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, address in dict.fromkeys((entry[0], entry[4]) for entry in found):
            sockets.append(_listen_at(family, address))
    except OSError:
        for one in sockets:
            one.close()
        raise
    return sockets


def _listen_at(family: int, address: tuple[object, ...]) -> socket.socket:
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(address)
        listening.listen(128)
        listening.setblocking(False)
    except OSError:
        listening.close()
        raise
    return listening
