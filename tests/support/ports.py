"""Ports for what tests start, also where several test processes pick theirs at the same time."""

import socket


def free_port() -> int:
    """Of 127.0.0.1. Until this process ends, nobody who asks for any free port is given it: we stay
    bound to it, without listening. Who names it can listen there, as servers do, with SO_REUSEADDR;
    until then connections are refused."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    port: int = held.getsockname()[1]
    held.detach()
    return port
