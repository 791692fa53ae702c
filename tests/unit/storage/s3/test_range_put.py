import asyncio
import errno
import os
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from tests.support.tls import tls_contexts
from yarl import URL

from cefmp4.errors import ProofFailedError, SourceError
from cefmp4.model.object import FileRange
from cefmp4.storage.s3 import range_put
from cefmp4.storage.s3.range_put import RangeSender

MIB = 1024 * 1024
SIZE = 5 * MIB + 12_345
OFFSET = 777
DEADLINE_S = 10.0


class Server:
    """`behave` says what comes next: keep (the body is kept and answered), early (a refusal, and
    the end of the connection, before the body was read), stuck (nothing is read any more), hang up
    (after the body, no answer)."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self.behave = "keep"
        self.bodies: list[bytes] = []
        self.peers: list[int] = []  # port of the client of each request
        self.headers: list[dict[str, str]] = []
        self.begun = threading.Event()
        self.freed = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_PUT(self) -> None:
                server.begun.set()
                server.peers.append(self.client_address[1])
                server.headers.append(dict(self.headers.items()))
                if server.behave == "early":
                    self.close_connection = True
                    self._answer(503, b"slow down", {"Retry-After": "9"})
                elif server.behave == "stuck":
                    self.close_connection = True
                    server.freed.wait()
                else:
                    server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                    if server.behave == "hang up":
                        self.close_connection = True
                    else:
                        self._answer(200, b"", {"ETag": '"e"'})
                        self.close_connection = server.behave == "keep, then close"

            def _answer(self, status: int, text: bytes, headers: dict[str, str]) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                pass

        class Listener(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                pass  # a client that went away is part of the tests

        self._listener = Listener(("127.0.0.1", 0), Handler)
        scheme = "http"
        if context is not None:
            self._listener.socket = context.wrap_socket(self._listener.socket, server_side=True)
            scheme = "https"
        self.url = URL(f"{scheme}://127.0.0.1:{self._listener.server_port}/b/k%20k?X-Sig=a%2Fb")
        self._thread = threading.Thread(target=self._listener.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self.freed.set()
        self._listener.shutdown()
        self._thread.join()
        self._listener.server_close()


Contexts = tuple[ssl.SSLContext | None, ssl.SSLContext | None]


@pytest.fixture(scope="module", params=["http", "https"])
def contexts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Contexts:
    """Of the server, and of who trusts it."""
    return (
        tls_contexts(tmp_path_factory.mktemp("tls")) if request.param == "https" else (None, None)
    )


@pytest.fixture
def server(contexts: Contexts) -> Iterator[Server]:
    running = Server(contexts[0])
    yield running
    running.close()


@pytest.fixture
def sender(contexts: Contexts) -> Iterator[RangeSender]:
    with RangeSender(contexts[1], threads=4) as opened:
        yield opened


async def test_ranges_arrive_on_one_connection(
    server: Server, sender: RangeSender, fd: int, data: bytes
) -> None:
    ranges = [(OFFSET, SIZE), (0, 1), (5, 256 * 1024), (9, 0)]
    for offset, size in ranges:
        reply = await sender.put(server.url, {"x-amz-meta-a": "1"}, FileRange(fd, offset, size))
        assert (reply.status, reply.is_whole, reply.headers["etag"]) == (200, True, '"e"')
    assert server.bodies == [data[offset : offset + size] for offset, size in ranges]
    assert len(set(server.peers)) == 1
    assert {headers["x-amz-meta-a"] for headers in server.headers} == {"1"}
    assert {headers["Host"] for headers in server.headers} == {server.url.authority}


async def test_bytes_in_memory_arrive_as_a_range_does(
    server: Server, sender: RangeSender, data: bytes
) -> None:
    bodies = [data[:SIZE], b"x", b""]
    for body in bodies:
        reply = await sender.put(server.url, {"x-amz-meta-a": "1"}, body)
        assert (reply.status, reply.is_whole, reply.headers["etag"]) == (200, True, '"e"')
    assert server.bodies == bodies
    assert len(set(server.peers)) == 1


async def test_ranges_go_side_by_side(
    server: Server, sender: RangeSender, fd: int, data: bytes
) -> None:
    async with asyncio.TaskGroup() as tasks:
        for n in range(4):
            tasks.create_task(sender.put(server.url, {}, FileRange(fd, n * MIB, MIB + n)))
    wanted = [data[n * MIB : (n + 1) * MIB + n] for n in range(4)]
    assert sorted(server.bodies) == sorted(wanted)


async def test_a_kept_connection_that_died_is_replaced(
    server: Server, sender: RangeSender, fd: int, data: bytes
) -> None:
    server.behave = "keep, then close"
    for _ in range(3):
        reply = await sender.put(server.url, {}, FileRange(fd, 0, SIZE))
        assert reply.status == 200
    assert server.bodies == [data[:SIZE]] * 3
    assert len(set(server.peers)) == 3


async def test_a_new_connection_that_dies_is_an_error(
    server: Server, sender: RangeSender, fd: int
) -> None:
    server.behave = "hang up"
    with pytest.raises(ConnectionResetError):
        await sender.put(server.url, {}, FileRange(fd, 0, SIZE))
    assert len(server.peers) == 1


@pytest.mark.parametrize("is_in_memory", [False, True])
async def test_a_refusal_is_heard_although_the_server_took_no_more(
    server: Server, sender: RangeSender, fd: int, is_in_memory: bool
) -> None:
    server.behave = "early"
    reply = await sender.put(server.url, {}, _large(fd, 512 * MIB, is_in_memory=is_in_memory))
    assert (reply.status, reply.text, reply.is_whole) == (503, b"slow down", False)
    assert reply.headers["retry-after"] == "9"


@pytest.mark.parametrize("is_in_memory", [False, True])
async def test_a_server_that_takes_nothing_more_is_noticed(
    server: Server,
    sender: RangeSender,
    fd: int,
    monkeypatch: pytest.MonkeyPatch,
    is_in_memory: bool,
) -> None:
    monkeypatch.setattr(range_put, "STALL_TIMEOUT_S", 0.2)
    server.behave = "stuck"
    body = _large(fd, 256 * MIB, is_in_memory=is_in_memory)
    with pytest.raises(OSError, match="timed out"):
        async with asyncio.timeout(DEADLINE_S):
            await sender.put(server.url, {}, body)


def _large(fd: int, size: int, *, is_in_memory: bool) -> FileRange | bytes:
    """Sparse: far more than the sockets buffer."""
    if is_in_memory:
        return bytes(size)
    os.ftruncate(fd, size)
    return FileRange(fd, 0, size)


async def test_a_file_that_ends_too_soon(server: Server, sender: RangeSender, fd: int) -> None:
    os.ftruncate(fd, 3 * MIB)
    with pytest.raises(ProofFailedError):
        await sender.put(server.url, {}, FileRange(fd, 0, SIZE))
    assert all(len(body) <= 3 * MIB for body in server.bodies)


async def test_a_file_that_cannot_be_read(server: Server, sender: RangeSender, fd: int) -> None:
    unreadable = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY)
    try:
        with pytest.raises(SourceError, match="the file cannot be read"):
            await sender.put(server.url, {}, FileRange(unreadable, OFFSET, SIZE))
    finally:
        os.close(unreadable)


async def test_one_that_is_cancelled_stops_reading(
    server: Server, sender: RangeSender, fd: int
) -> None:
    os.ftruncate(fd, 256 * MIB)
    server.behave = "stuck"
    sending = asyncio.create_task(sender.put(server.url, {}, FileRange(fd, 0, 256 * MIB)))
    assert await asyncio.to_thread(server.begun.wait, DEADLINE_S)
    assert len(_opened(fd)) == 2
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert await asyncio.to_thread(_is_alone, fd)


def _is_alone(fd: int) -> bool:
    deadline = time.monotonic() + DEADLINE_S
    while _opened(fd) != [fd]:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _opened(fd: int) -> list[int]:
    """The descriptors of the file that `fd` is of."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the one by which they were listed
            if os.path.sameopenfile(int(name), fd):
                found.append(int(name))
    return found


async def test_where_sendfile_cannot_be_the_range_is_read(
    server: Server,
    sender: RangeSender,
    fd: int,
    data: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unavailable(*_: object) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "sendfile", unavailable)
    reply = await sender.put(server.url, {}, FileRange(fd, OFFSET, SIZE))
    assert reply.status == 200
    assert server.bodies == [data[OFFSET : OFFSET + SIZE]]


async def test_a_plain_body_is_left_to_the_kernel(
    fd: int, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "preadv")
    server = Server(None)
    try:
        with RangeSender(None, threads=4) as sender:
            await sender.put(server.url, {}, FileRange(fd, OFFSET, SIZE))
    finally:
        server.close()
    assert server.bodies == [data[OFFSET : OFFSET + SIZE]]


@pytest.mark.parametrize("contexts", ["https"], indirect=True)
async def test_a_server_that_nobody_vouches_for(server: Server, fd: int) -> None:
    with (
        RangeSender(ssl.create_default_context(), threads=4) as sender,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        await sender.put(server.url, {}, FileRange(fd, 0, SIZE))
    assert server.bodies == []
