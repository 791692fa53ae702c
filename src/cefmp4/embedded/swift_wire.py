"""Sockets of the Swift process: one TCP port that checks signatures, and three files behind it.

Swift's inner servers trust whoever reaches them. As socket files in a folder of ours alone they
are out of reach for other users of the machine, which TCP ports are not; they cost less, too."""

import os
import socket

import eventlet
from eventlet.green import socket as green_socket
from swift.common import bufferedhttp

from cefmp4.embedded.sockets import user_at
from cefmp4.embedded.swift_config import BACKENDS, SOCKETS

_BACKLOG = 1024
_ROOT = 0


class OwnersPort(green_socket.socket):  # type: ignore[misc]  # eventlet has no types
    """Takes connections of our user and of root alone: others of this machine have no keys, and
    would only take the places of those who do."""

    def accept(self) -> tuple[socket.socket, tuple[str, int]]:
        while True:
            connection, client = super().accept()
            if user_at(client, connection.getsockname()) in (None, _ROOT, os.geteuid()):
                return connection, client
            connection.close()
            eventlet.sleep(0)  # a flood of them must not keep the others from their work


def take_public(descriptor: int) -> socket.socket:
    """The port that our owner holds open, so that nobody else can take it while we restart."""
    return OwnersPort(fileno=descriptor)


def backend_port(kind: str) -> int:
    """Swift's rings speak of ports. Ours only name a socket file."""
    return 1 + BACKENDS.index(kind)


def listen_backend(kind: str) -> socket.socket:
    SOCKETS.mkdir(mode=0o700, exist_ok=True)
    SOCKETS.chmod(0o700)
    (SOCKETS / kind).unlink(missing_ok=True)
    listener = green_socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(SOCKETS / kind))
    listener.listen(_BACKLOG)
    return listener  # type: ignore[no-any-return]  # eventlet has no types


def route_to_backends() -> None:
    """Every request that Swift makes itself goes to a backend: connect it to the file."""
    addresses = {backend_port(kind): str(SOCKETS / kind) for kind in BACKENDS}

    def connect(connection: bufferedhttp.BufferedHTTPConnection) -> None:
        connection._connected_time = 0.0  # for a debug line that is switched off
        connection.sock = green_socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.connect(addresses[connection.port])

    bufferedhttp.BufferedHTTPConnection.connect = connect
