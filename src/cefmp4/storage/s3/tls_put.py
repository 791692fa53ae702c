"""Sends the range of a file over TLS from a thread, where OpenSSL encrypts into the socket. The TLS
of the event loop copies each byte three times more, and wakes the loop for every window."""

import asyncio
import os
import socket
import ssl
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPSConnection
from select import POLLIN, poll
from time import monotonic
from typing import Self

from multidict import CIMultiDict
from yarl import URL

from cefmp4.errors import ProofFailedError
from cefmp4.model.object import FileRange
from cefmp4.storage.s3.errors import MAX_ERROR_BODY
from cefmp4.storage.s3.file_body import BECAME_SHORTER, READ_WINDOW, unreadable

LAST_WORDS_S = 1.0  # for the reply of a server that takes no more of the body


@dataclass(frozen=True, slots=True)
class Reply:
    """`is_whole`: it came after every byte of the body had left."""

    status: int
    headers: Mapping[str, str]
    text: bytes
    is_whole: bool


class TlsSender:
    """PUTs side by side, each with a thread and a connection to itself meanwhile."""

    def __init__(
        self,
        context: ssl.SSLContext,
        *,
        threads: int,
        connect_timeout_s: float,
        stall_timeout_s: float,
        keepalive_s: float,
    ) -> None:
        self._connections = _Connections(context, connect_timeout_s, stall_timeout_s, keepalive_s)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="tls-put")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._connections.close()

    async def put(self, url: URL, headers: Mapping[str, str], body: FileRange) -> Reply:
        """Raises OSError when the server cannot be talked to, ProofFailedError when the file ended
        before the range did."""
        attempt = _Attempt(self._connections, url, headers, body)
        running = self._threads.submit(attempt.run)
        running.add_done_callback(lambda _: attempt.close())
        try:
            return await asyncio.wrap_future(running)
        except asyncio.CancelledError:
            attempt.stop()
            raise


@dataclass(slots=True)
class _Connections:
    """Those that wait for their next request, the latest used first."""

    context: ssl.SSLContext
    connect_timeout_s: float
    stall_timeout_s: float
    keepalive_s: float
    _idle: list[tuple[float, HTTPSConnection]] = field(default_factory=list)
    _is_closed: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, host: str, port: int) -> HTTPSConnection | None:
        """One that is open, as far as can be seen."""
        while True:
            with self._lock:
                if not self._idle:
                    return None
                since, connection = self._idle.pop()
            is_young = monotonic() - since < self.keepalive_s
            is_there = (connection.host, connection.port) == (host, port)
            if is_young and is_there and not _has_something_to_read(connection.sock):
                return connection
            connection.close()

    def open(self, host: str, port: int) -> HTTPSConnection:
        connection = HTTPSConnection(
            host, port, timeout=self.connect_timeout_s, context=self.context
        )
        try:
            connection.connect()
        except OSError:
            connection.close()
            raise
        connection.sock.settimeout(self.stall_timeout_s)
        return connection

    def keep(self, connection: HTTPSConnection) -> None:
        with self._lock:
            if not self._is_closed:
                self._idle.append((monotonic(), connection))
                return
        connection.close()

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for _, connection in idle:
            connection.close()


def _has_something_to_read(sock: socket.socket) -> bool:
    """On a connection that is idle this is its end."""
    watch = poll()  # select() knows no descriptor above 1023
    watch.register(sock, POLLIN)
    return bool(watch.poll(0))


class _Attempt:
    """One PUT; all but `stop` and `close` runs in its thread. It reads through a descriptor of its
    own, so that nobody has to wait for its end before the file is closed."""

    def __init__(
        self, connections: _Connections, url: URL, headers: Mapping[str, str], body: FileRange
    ) -> None:
        self._connections = connections
        self._url = url
        self._headers = headers
        self._offset = body.offset
        self._size = body.size
        self._fd = os.dup(body.fd)
        self._socket: socket.socket | None = None
        self._is_stopped = False

    def close(self) -> None:
        os.close(self._fd)

    def stop(self) -> None:
        self._is_stopped = True
        if self._socket is not None:
            with suppress(OSError):
                # Not SSLSocket.shutdown: that one forgets its keys first, and what the thread
                # sends in that moment would leave unencrypted.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def run(self) -> Reply:
        host, port = self._url.host or "", self._url.port or 443
        kept = self._connections.take(host, port)
        if kept is not None:
            try:
                return self._exchange(kept)
            except TimeoutError:
                raise
            except OSError:
                if self._is_stopped:
                    raise  # else the server had closed it while it was idle
        return self._exchange(self._connections.open(host, port))

    def _exchange(self, connection: HTTPSConnection) -> Reply:
        self._socket = connection.sock
        is_reusable = False
        try:
            connection.putrequest("PUT", self._url.raw_path_qs, skip_accept_encoding=True)
            for name, value in self._headers.items():
                connection.putheader(name, value)
            connection.putheader("Content-Length", str(self._size))
            connection.endheaders()
            is_whole = self._send(connection.sock)
            with connection.getresponse() as reply:
                text = reply.read(MAX_ERROR_BODY)
                is_reusable = is_whole and reply.isclosed() and not reply.will_close
            return Reply(reply.status, CIMultiDict(reply.getheaders()), text, is_whole)
        except HTTPException as error:
            raise ConnectionResetError(type(error).__name__) from None  # its text is the server's
        finally:
            self._socket = None
            if is_reusable:
                self._connections.keep(connection)
            else:
                connection.close()

    def _send(self, sock: socket.socket) -> bool:
        """False when the server takes no more: its reply may tell why."""
        buffer = memoryview(bytearray(min(READ_WINDOW, self._size)))
        sent = 0
        while sent < self._size:
            if self._is_stopped:
                raise ConnectionAbortedError("cancelled")
            window = buffer[: min(READ_WINDOW, self._size - sent)]
            try:
                count = os.preadv(self._fd, [window], self._offset + sent)
            except OSError as error:
                raise unreadable(error) from error
            if not count:
                raise ProofFailedError(BECAME_SHORTER)
            try:
                sock.sendall(window[:count])
            except OSError:
                sock.settimeout(LAST_WORDS_S)
                return False
            sent += count
        return True
