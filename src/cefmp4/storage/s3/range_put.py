"""Sends the range of a file, or bytes in memory, from a thread: by the kernel's sendfile, or over
TLS by OpenSSL, which encrypts into the socket. On the event loop each window of either would wake
the loop, and its TLS copies each byte three times more."""

import asyncio
import errno
import os
import socket
import ssl
from collections import deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from select import POLLIN, POLLOUT, poll
from time import monotonic
from typing import Protocol, Self

from multidict import CIMultiDict
from yarl import URL

from cefmp4.model.object import FileRange
from cefmp4.storage.s3.errors import became_shorter, unreadable

CONNECT_TIMEOUT_S = 5.0
STALL_TIMEOUT_S = 30.0
KEEPALIVE_S = 20.0
MAX_ERROR_BODY = 64 * 1024
READ_WINDOW = 256 * 1024
SEND_WINDOW = 2 * 1024 * 1024
LAST_WORDS_S = 1.0  # for the reply of a server that takes no more of the body
_NO_SENDFILE = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}  # of this file system


@dataclass(frozen=True, slots=True)
class Reply:
    """`is_whole`: it came after every byte of the body had left."""

    status: int
    headers: Mapping[str, str]
    text: bytes
    is_whole: bool


class RangeSender:
    """PUTs side by side, each with a thread and a connection to itself meanwhile. `context` None:
    plain HTTP."""

    def __init__(self, context: ssl.SSLContext | None, *, threads: int) -> None:
        self._context = context
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="put")
        self._idle: deque[tuple[float, HTTPConnection]] = deque()
        self._is_closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._is_closed = True
        self._close_idle()

    async def put(self, url: URL, headers: Mapping[str, str], body: FileRange | bytes) -> Reply:
        """Raises OSError when the server cannot be talked to, ProofFailedError when the file ended
        before the range did."""
        sent = _InMemory(body) if isinstance(body, bytes) else _OfFile(body)
        attempt = _Attempt(self, url, headers, sent)
        running = self._threads.submit(attempt.run)
        running.add_done_callback(lambda _: attempt.close())
        try:
            return await asyncio.wrap_future(running)
        except asyncio.CancelledError:
            attempt.stop()
            raise

    # What the threads ask for.

    def take_idle(self, host: str, port: int) -> HTTPConnection | None:
        """The latest used one that is open, as far as can be seen."""
        while self._idle:
            with suppress(IndexError):  # another thread was faster
                since, connection = self._idle.pop()
                is_young = monotonic() - since < KEEPALIVE_S
                is_there = (connection.host, connection.port) == (host, port)
                # On a connection that is idle, something to read is its end.
                if is_young and is_there and not _ready(connection.sock, POLLIN, 0):
                    return connection
                connection.close()
        return None

    def open(self, host: str, port: int) -> HTTPConnection:
        connection = (
            HTTPConnection(host, port, timeout=CONNECT_TIMEOUT_S)
            if self._context is None
            else HTTPSConnection(host, port, timeout=CONNECT_TIMEOUT_S, context=self._context)
        )
        try:
            connection.connect()
        except OSError:
            connection.close()
            raise
        connection.sock.settimeout(STALL_TIMEOUT_S)
        return connection

    def keep(self, connection: HTTPConnection) -> None:
        self._idle.append((monotonic(), connection))
        if self._is_closed:
            self._close_idle()

    def _close_idle(self) -> None:
        with suppress(IndexError):
            while True:
                self._idle.pop()[1].close()


def _ready(sock: socket.socket, events: int, within_s: float | None) -> int:
    """Which of the events has come."""
    watch = poll()  # select() knows no descriptor above 1023
    watch.register(sock, events)
    found = watch.poll(None if within_s is None else within_s * 1000)
    return found[0][1] if found else 0


class _Body(Protocol):
    """What one PUT sends; all but `close` is asked for in its thread."""

    @property
    def size(self) -> int: ...

    def send(self, sock: socket.socket, sent: int) -> int:
        """What comes after the first `sent` bytes, as much as goes at once: how much that was.
        Raises OSError where the socket is the reason."""
        ...

    def close(self) -> None: ...


class _InMemory:
    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self.size = len(data)

    def send(self, sock: socket.socket, sent: int) -> int:
        if isinstance(sock, ssl.SSLSocket):
            return sock.send(self._data[sent : sent + READ_WINDOW])
        _check_taking(sock)
        return sock.send(self._data[sent : sent + SEND_WINDOW])

    def close(self) -> None:
        self._data.release()


class _OfFile:
    """It reads through a descriptor of its own, so that nobody has to wait for its end before the
    file is closed."""

    def __init__(self, body: FileRange) -> None:
        self.size = body.size
        self._offset = body.offset
        self._window = memoryview(bytearray(min(READ_WINDOW, body.size)))
        self._has_sendfile = True
        self._fd = os.dup(body.fd)

    def send(self, sock: socket.socket, sent: int) -> int:
        if isinstance(sock, ssl.SSLSocket) or not self._has_sendfile:
            count = self._send_read(sock, sent)
        else:
            count = self._send_by_kernel(sock, sent)
        if not count:
            raise became_shorter()
        return count

    def close(self) -> None:
        os.close(self._fd)

    def _send_by_kernel(self, sock: socket.socket, sent: int) -> int:
        _check_taking(sock)
        count = min(SEND_WINDOW, self.size - sent)
        try:
            return os.sendfile(sock.fileno(), self._fd, self._offset + sent, count)
        except OSError as error:
            if error.errno in _NO_SENDFILE:
                self._has_sendfile = False
                return self._send_read(sock, sent)
            self._read(sent, self._window[:1])  # it does not tell which of its two ends failed
            raise

    def _send_read(self, sock: socket.socket, sent: int) -> int:
        window = self._window[: self.size - sent]
        count = self._read(sent, window)
        sock.sendall(window[:count])
        return count

    def _read(self, sent: int, into: memoryview) -> int:
        try:
            return os.preadv(self._fd, [into], self._offset + sent)
        except OSError as error:
            raise unreadable(error) from error


def _check_taking(sock: socket.socket) -> None:
    """Raises TimeoutError, in time, unless more may be sent."""
    ready = _ready(sock, POLLIN | POLLOUT, sock.gettimeout())
    if not ready & POLLOUT or ready & POLLIN:
        raise TimeoutError("it takes no more, or has answered before the end")


class _Attempt:
    """One PUT; all but `stop` and `close` runs in its thread."""

    def __init__(
        self, sender: RangeSender, url: URL, headers: Mapping[str, str], body: _Body
    ) -> None:
        self._sender = sender
        self._url = url
        self._headers = headers
        self._body = body
        self._socket: socket.socket | None = None
        self._is_stopped = False

    def close(self) -> None:
        self._body.close()

    def stop(self) -> None:
        self._is_stopped = True
        if self._socket is not None:
            with suppress(OSError):
                # Not SSLSocket.shutdown: that one forgets its keys first, and what the thread
                # sends in that moment would leave unencrypted.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def run(self) -> Reply:
        host, port = self._url.host or "", self._url.port or 443
        kept = self._sender.take_idle(host, port)
        if kept is not None:
            try:
                return self._exchange(kept)
            except TimeoutError:
                raise
            except OSError:
                if self._is_stopped:
                    raise  # else the server had closed it while it was idle
        return self._exchange(self._sender.open(host, port))

    def _exchange(self, connection: HTTPConnection) -> Reply:
        self._socket = connection.sock
        is_reusable = False
        try:
            connection.putrequest("PUT", self._url.raw_path_qs, skip_accept_encoding=True)
            for name, value in self._headers.items():
                connection.putheader(name, value)
            connection.putheader("Content-Length", str(self._body.size))
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
                self._sender.keep(connection)
            else:
                connection.close()

    def _send(self, sock: socket.socket) -> bool:
        """False when the server takes no more: its reply may tell why."""
        sent = 0
        while sent < self._body.size:
            if self._is_stopped:
                raise ConnectionAbortedError("cancelled")
            try:
                sent += self._body.send(sock, sent)
            except OSError:
                sock.settimeout(LAST_WORDS_S)
                return False
        return True
