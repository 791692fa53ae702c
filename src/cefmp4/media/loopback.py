"""Reads one object to the ffmpeg of one job, which never sees an address of the store. Arguments
of a process are for all to see, so what opens this is in its environment: ffmpeg takes us for its
HTTP proxy, and the name that it asks for exists nowhere else. Who listens in here or guesses the
port gets nothing without the token."""

import asyncio
import base64
import re
import secrets
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from itertools import islice
from typing import Protocol

import structlog

from cefmp4.errors import AccessDeniedError, CefError, PermanentError
from cefmp4.media.source import MediaSource
from cefmp4.model.part import MIB

log = structlog.get_logger()

_URL = "http://recording/object"
_HEADER_BYTES = 16 * 1024
_HEADER_S = 5.0
_STRANGERS = 32  # connections that have shown no token yet; the oldest gives way to one more
# A seek wants little, and what is read in advance of the next one is for nothing.
_FIRST_BYTES, _MOST_BYTES = MIB // 4, 4 * MIB
_MOST_AHEAD = 3  # pieces, or a server far away is waited for
_REQUEST = re.compile(rb"(GET|HEAD) http://recording(?::80)?/object HTTP/1\.[01]\r\n")
_RANGE = re.compile(rb"\r\nRange: *bytes=(\d{1,18})-(\d{0,18})\r\n", re.IGNORECASE)
_TOKEN = re.compile(rb"\r\nProxy-Authorization: *Basic +(\S{1,200})\r\n", re.IGNORECASE)


class RemoteObject(Protocol):
    @property
    def size(self) -> int: ...

    async def read(self, start: int, end: int) -> bytes:
        """All of the range. PermanentError: the object is not what it was."""
        ...


class Loopback:
    def __init__(self, source: RemoteObject) -> None:
        self._source = source
        token = secrets.token_urlsafe(32)
        self._password = f"job:{token}"
        self._accepted = base64.b64encode(self._password.encode())
        self._strangers: dict[asyncio.StreamWriter, None] = {}

    def __repr__(self) -> str:
        return f"<Loopback strangers={len(self._strangers)}>"

    @asynccontextmanager
    async def open(self) -> AsyncIterator[MediaSource]:
        answering: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(self._serve(reader, writer), name="read to ffmpeg")
            answering.add(task)
            task.add_done_callback(answering.discard)

        server = await asyncio.start_server(accept, "127.0.0.1", 0, limit=_HEADER_BYTES)
        port = server.sockets[0].getsockname()[1]
        secret = {"http_proxy": f"http://{self._password}@127.0.0.1:{port}"}
        try:
            yield MediaSource(url=_URL, environment=secret, size=self._source.size)
        finally:
            server.close()
            for task in answering:
                task.cancel()
            await asyncio.gather(*answering, return_exceptions=True)
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._strangers[writer] = None
        if len(self._strangers) > _STRANGERS:
            next(iter(self._strangers)).transport.abort()
        try:
            async with asyncio.timeout(_HEADER_S):
                head = await reader.readuntil(b"\r\n\r\n")
            if not self._is_ours(head):
                writer.write(_reply(407, 'Proxy-Authenticate: Basic realm="recording"'))
            else:
                del self._strangers[writer]
                await self._answer(head, writer)
            async with asyncio.timeout(_HEADER_S):
                await writer.drain()
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
            writer.transport.abort()
        finally:
            self._strangers.pop(writer, None)
            writer.close()

    def _is_ours(self, head: bytes) -> bool:
        told = _TOKEN.search(head)
        return told is not None and secrets.compare_digest(told[1], self._accepted)

    async def _answer(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        asked = _REQUEST.match(head)
        if not asked:
            writer.write(_reply(404))
            return
        size, ranged = self._source.size, _RANGE.search(head)
        start = int(ranged[1]) if ranged else 0
        end = min(int(ranged[2]) + 1, size) if ranged and ranged[2] else size
        if start >= end and (ranged or size):
            writer.write(_reply(416, f"Content-Range: bytes */{size}"))
            return
        if asked[1] == b"HEAD":
            writer.write(_reply(200, "Accept-Ranges: bytes", length=size))
            return
        told = f"Content-Range: bytes {start}-{end - 1}/{size}"
        headers = ("Accept-Ranges: bytes", *((told,) if ranged else ()))
        await self._send(
            writer, start, end, _reply(206 if ranged else 200, *headers, length=end - start)
        )

    async def _send(self, writer: asyncio.StreamWriter, start: int, end: int, head: bytes) -> None:
        """The next pieces are read while one is sent, the more the longer ffmpeg goes on: most
        seeks want the first piece alone."""
        pieces, ahead = _pieces(start, end), 1
        reading = deque(self._next(pieces, ahead))
        try:
            while reading:
                try:
                    data = await reading[0]
                except CefError as error:
                    self._give_up(writer, error, has_begun=not head)
                    return
                reading.popleft()
                writer.write(head)
                writer.write(data)
                head = b""
                await writer.drain()  # for as long as ffmpeg is busy with what it has
                ahead = min(ahead + 1, _MOST_AHEAD)
                reading += self._next(pieces, ahead - len(reading))
        finally:
            for task in reading:
                task.cancel()
            await asyncio.gather(*reading, return_exceptions=True)
        writer.write(head)

    def _next(self, pieces: Iterator[tuple[int, int]], count: int) -> list[asyncio.Task[bytes]]:
        return [
            asyncio.create_task(self._source.read(*piece), name="read object")
            for piece in islice(pieces, count)
        ]

    def _give_up(self, writer: asyncio.StreamWriter, error: CefError, *, has_begun: bool) -> None:
        """ffmpeg asks for the rest again where a connection breaks off, and then is told why."""
        log.debug("the source cannot be read", reason=str(error))
        if has_begun:
            writer.transport.abort()
        else:
            writer.write(_reply(_status_of(error)))


def _status_of(error: CefError) -> int:
    if isinstance(error, AccessDeniedError):
        return 403
    return 410 if isinstance(error, PermanentError) else 503


def _pieces(start: int, end: int) -> Iterator[tuple[int, int]]:
    size = _FIRST_BYTES
    while start < end:
        yield start, min(start + size, end)
        start, size = start + size, min(2 * size, _MOST_BYTES)


def _reply(status: int, *headers: str, length: int = 0) -> bytes:
    lines = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        *headers,
        f"Content-Length: {length}",
    )
    return "\r\n".join((*lines, "Connection: close", "", "")).encode("ascii")
