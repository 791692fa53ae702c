"""Who is slow on purpose: heads and bodies byte by byte, connections that say nothing, answers that
nobody takes. Each ends in a bounded time, and the limits are what the tests make short."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.support.http_port import GUARDED, LOOPBACK, Port, open_port

from cefmp4 import metrics

HOST = b"Host: localhost\r\n"
LIMIT_S = 0.5
PATIENCE_S = 8.0


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("door.HEAD_S", "door.SLOW_S", "questions.BODY_S", "door.SWEEP_S"):
        monkeypatch.setattr(f"cefmp4.web.{name}", LIMIT_S)


async def life(port: Port, begun: bytes, more: bytes) -> float | None:
    """How long a connection lives that sends `more` again and again; None: too long."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port.number)
    started = time.monotonic()
    gone = asyncio.create_task(reader.read())
    writer.write(begun)
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not gone.done():
                writer.write(more)
                await asyncio.wait({gone}, timeout=0.1)
    except TimeoutError:
        return None
    finally:
        gone.cancel()
        writer.transport.abort()
    return time.monotonic() - started


LOGIN = b"POST /api/session HTTP/1.1\r\n" + HOST
SLOW = {
    "mute": (b"", b""),
    "method": (b"", b"G"),
    "path": (b"GET /", b"a"),
    "value": (b"GET / HTTP/1.1\r\n" + HOST + b"X: ", b"a"),
    "headers": (b"GET / HTTP/1.1\r\n" + HOST, b"X: y\r\n"),
    "idle": (b"GET /livez HTTP/1.1\r\n" + HOST + b"\r\n", b""),
    "second": (b"GET /livez HTTP/1.1\r\n" + HOST + b"\r\nGET /", b"a"),
    "body": (LOGIN + b"Content-Length: 60000\r\n\r\n", b"x"),
    "unread": (b"POST /stats HTTP/1.1\r\n" + HOST + b"Content-Length: 60000\r\n\r\n", b"x"),
    "chunk": (LOGIN + b"Transfer-Encoding: chunked\r\n\r\n", b"0"),
}


async def test_a_slow_request_ends() -> None:
    async with open_port(GUARDED) as port:
        lives = await asyncio.gather(*(life(port, *attack) for attack in SLOW.values()))
        lasted = {name: lived for name, lived in zip(SLOW, lives, strict=True) if lived is None}
        assert lasted == {}
        assert await port.status("/livez") == 200


@asynccontextmanager
async def deaf(port: Port, request: bytes) -> AsyncIterator[socket.socket]:
    """It asks, and takes nothing of the answer."""
    with socket.socket() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        peer.setblocking(False)
        await asyncio.get_running_loop().sock_connect(peer, ("127.0.0.1", port.number))
        await asyncio.get_running_loop().sock_sendall(peer, request)
        yield peer


async def ended(before: float) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while metrics.http_refused.labels("slow")._value.get() <= before:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("path", ["/large", "/large-and-close"])
async def test_an_answer_that_nobody_takes_ends(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the one that is only waiting to be closed."""
    monkeypatch.setattr("cefmp4.web.page._read", lambda _path: (bytes(32 << 20), '"x"'))
    before = metrics.http_refused.labels("slow")._value.get()
    async with open_port(LOOPBACK) as port:
        how = b"Connection: close\r\n" if "close" in path else b""
        async with deaf(port, b"GET /assets/page.js HTTP/1.1\r\n" + HOST + how + b"\r\n"):
            await ended(before)
        assert await port.status("/livez") == 200


async def test_what_is_left_of_a_closed_connection_ends() -> None:
    """Its answer is small enough to be written at once, and too large to be taken."""
    before = metrics.http_refused.labels("slow")._value.get()
    async with open_port(LOOPBACK) as port:
        one = b"GET /assets/page.js HTTP/1.1\r\n" + HOST + b"\r\n"
        async with deaf(port, one * 2000):
            await ended(before)
        assert await port.status("/livez") == 200


async def test_a_deaf_listener_of_events_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cefmp4.web.feed.SLOW_S", LIMIT_S)
    much = b": " + bytes(1 << 20) + b"\n\n"
    monkeypatch.setattr("cefmp4.web.feed._said", lambda _name, _event: much)
    monkeypatch.setattr("cefmp4.web.feed.QUIET_BEATS", 1)
    monkeypatch.setattr("cefmp4.web.feed.MAX_LISTENERS", 1)
    async with open_port(LOOPBACK) as port:
        async with deaf(port, b"GET /events HTTP/1.1\r\n" + HOST + b"\r\n"):
            async with asyncio.timeout(PATIENCE_S):
                while await port.status("/events") == 503:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
        assert await port.status("/livez") == 200
