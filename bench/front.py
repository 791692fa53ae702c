"""A small proxy in front of the S3 server, a process of its own: it counts what clients send, and
ends TLS where asked to. `python -m bench.front --port P --to P --count FILE [--cert PEM]`"""

import argparse
import mmap
import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

WINDOW = 256 * 1024


class Count:
    """Bytes from clients, in a file that another process may read at any time."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(8))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 8)
        self._lock = threading.Lock()
        self._total = 0

    def add(self, size: int) -> None:
        with self._lock:
            self._total += size
            self._memory[:8] = struct.pack("<Q", self._total)


def read_count(path: Path) -> int:
    return int(struct.unpack("<Q", path.read_bytes())[0])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--to", type=int, required=True)
    parser.add_argument("--count", type=Path, required=True)
    parser.add_argument("--cert", type=Path)
    options = parser.parse_args()
    context = None
    if options.cert:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.cert)
    count = Count(options.count)
    with socket.create_server(("127.0.0.1", options.port), backlog=256) as listener:
        while True:
            client, _ = listener.accept()
            work = (client, options.to, count.add, context)
            threading.Thread(target=_serve, args=work, daemon=True).start()


def _serve(
    client: socket.socket, port: int, add: Callable[[int], None], context: ssl.SSLContext | None
) -> None:
    with suppress(OSError):
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        near = context.wrap_socket(client, server_side=True) if context else client
        with near, socket.create_connection(("127.0.0.1", port)) as far:
            far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _relay(near, far, add)


def _relay(near: socket.socket, far: socket.socket, add: Callable[[int], None]) -> None:
    """One thread for both directions: a TLS connection must not be used by two at once."""
    buffer = memoryview(bytearray(WINDOW))
    while True:
        waiting = near.pending() if isinstance(near, ssl.SSLSocket) else 0
        ready = [near] if waiting else select.select([near, far], [], [])[0]
        for source in ready:
            size = source.recv_into(buffer)
            if not size:
                return
            if source is near:
                add(size)
                far.sendall(buffer[:size])
            else:
                near.sendall(buffer[:size])


if __name__ == "__main__":
    main()
