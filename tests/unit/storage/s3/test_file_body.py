import asyncio
import io
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import md5
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from tests.support.tls import tls_contexts

from cefmp4.model.object import FileRange
from cefmp4.storage.s3 import file_body
from cefmp4.storage.s3.file_body import RangeFile, RangePayload, read_window

MIB = 1024 * 1024
SIZE = 9 * MIB + 12_345
OFFSET = 777


class Receiver:
    """Keeps the last body; `is_early` answers without reading it, `is_stuck` does neither."""

    def __init__(self) -> None:
        self.body = b""
        self.is_early = False
        self.is_stuck = False
        self.url = ""
        self._freed = asyncio.Event()

    async def handle(self, request: web.Request) -> web.Response:
        if self.is_early:
            return web.Response(status=503, text="slow down", headers={"Retry-After": "9"})
        if self.is_stuck:
            await self._freed.wait()
            return web.Response()
        self.body = await request.read()
        return web.Response()

    @asynccontextmanager
    async def running(self, tls: ssl.SSLContext | None = None) -> AsyncIterator["Receiver"]:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_put("/", self.handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        scheme = "https" if tls else "http"
        self.url = f"{scheme}://127.0.0.1:{runner.addresses[0][1]}/"
        try:
            yield self
        finally:
            self._freed.set()
            await runner.cleanup()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


async def test_the_range_arrives_by_sendfile(
    session: aiohttp.ClientSession, fd: int, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    monkeypatch.setattr(file_body, "read_window", lambda *args: read.append(args))
    async with Receiver().running() as receiver:
        for offset, size in ((OFFSET, SIZE), (0, 1), (5, 64 * 1024), (9, 65537)):
            payload = RangePayload(FileRange(fd, offset, size))
            async with session.put(receiver.url, data=payload) as reply:
                assert reply.status == 200
            assert payload.is_sent
            assert receiver.body == data[offset : offset + size]
    assert not read


async def test_several_ranges_of_one_file_go_side_by_side(
    session: aiohttp.ClientSession, fd: int, data: bytes
) -> None:
    digests = []

    async def handle(request: web.Request) -> web.Response:
        digests.append((int(request.query["n"]), md5(await request.read()).digest()))
        return web.Response()

    receiver = Receiver()
    receiver.handle = handle  # type: ignore[method-assign]
    async with receiver.running(), asyncio.TaskGroup() as tasks:
        for n in range(8):
            body = FileRange(fd, n * MIB, MIB + n)
            tasks.create_task(_put(session, f"{receiver.url}?n={n}", RangePayload(body)))
    assert sorted(digests) == [
        (n, md5(data[n * MIB : (n + 1) * MIB + n]).digest()) for n in range(8)
    ]


async def _put(session: aiohttp.ClientSession, url: str, payload: RangePayload) -> int:
    async with session.put(url, data=payload) as reply:
        await reply.read()
        return reply.status


async def test_where_sendfile_cannot_be_the_range_is_read(
    session: aiohttp.ClientSession, fd: int, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unavailable(*_: object, **__: object) -> int:
        raise asyncio.SendfileNotAvailableError

    monkeypatch.setattr(asyncio.get_running_loop(), "sendfile", unavailable)
    async with Receiver().running() as receiver:
        await _put(session, receiver.url, RangePayload(FileRange(fd, OFFSET, SIZE)))
        assert receiver.body == data[OFFSET : OFFSET + SIZE]


async def test_the_range_arrives_over_tls(fd: int, data: bytes, tmp_path: Path) -> None:
    served, trusted = await asyncio.to_thread(tls_contexts, tmp_path)
    connector = aiohttp.TCPConnector(ssl=trusted)
    async with Receiver().running(served) as receiver:
        async with aiohttp.ClientSession(connector=connector) as session:
            await _put(session, receiver.url, RangePayload(FileRange(fd, OFFSET, SIZE)))
        assert receiver.body == data[OFFSET : OFFSET + SIZE]


async def test_a_file_that_ends_too_soon_never_looks_sent(
    session: aiohttp.ClientSession, fd: int
) -> None:
    os.ftruncate(fd, 3 * MIB)
    payload = RangePayload(FileRange(fd, 0, SIZE))
    async with Receiver().running() as receiver:
        with pytest.raises(aiohttp.ClientError):
            await _put(session, receiver.url, payload)
        assert receiver.body == b""
    assert payload.is_short
    assert not payload.is_sent


async def test_an_early_reply_is_heard_while_bytes_leave(
    session: aiohttp.ClientSession, fd: int
) -> None:
    os.ftruncate(fd, 512 * MIB)  # sparse: far more than the sockets buffer
    payload = RangePayload(FileRange(fd, 0, 512 * MIB))
    receiver = Receiver()
    receiver.is_early = True
    async with receiver.running(), session.put(receiver.url, data=payload) as reply:
        assert reply.status == 503
        assert reply.headers["Retry-After"] == "9"
    assert not payload.is_sent


async def test_a_server_that_takes_nothing_more_is_noticed(
    session: aiohttp.ClientSession, fd: int
) -> None:
    os.ftruncate(fd, 256 * MIB)
    payload = RangePayload(FileRange(fd, 0, 256 * MIB), stall_timeout_s=0.2)
    receiver = Receiver()
    receiver.is_stuck = True
    async with receiver.running():
        with pytest.raises((TimeoutError, aiohttp.ClientError)):
            async with asyncio.timeout(10):
                await _put(session, receiver.url, payload)
    assert not payload.is_sent


async def test_a_window_is_read_whether_it_is_cached_or_not(
    fd: int, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await read_window(fd, 5, 1000) == data[5:1005]
    assert await read_window(fd, len(data) - 10, 1000) == data[-10:]
    assert await read_window(fd, len(data), 10) == b""
    monkeypatch.setattr(file_body, "_NOWAIT", 0)
    assert await read_window(fd, 5, 1000) == data[5:1005]


def test_the_range_as_a_file(fd: int, data: bytes) -> None:
    body = RangeFile(FileRange(fd, OFFSET, 5000))
    wanted = data[OFFSET : OFFSET + 5000]
    assert len(body) == 5000
    assert body.read() == wanted
    assert body.read(1) == b""
    assert body.seek(-10, io.SEEK_END) == 4990
    assert body.read(100) == wanted[-10:]
    body.seek(7)
    assert body.read(3) == wanted[7:10]
    assert body.tell() == 10
