"""Bytes that are no request, requests that mean harm, and what they cost: one line of the log, an
answer that repeats nothing, a connection that ends."""

import asyncio
import gzip
import re

import pytest
from tests.support.http_port import CHANGE, GUARDED, ID, LOOPBACK, TOKEN, open_port

from cefmp4 import metrics

HOST = b"Host: localhost\r\n"
BROKEN = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),  # TLS
    b"GET\r\n\r\n",
    b"GET /stats\r\n\r\n",  # HTTP/0.9
    b"GET /stats HTTP/9.9\r\n" + HOST + b"\r\n",
    b"<script>alert(1)</script> / HTTP/1.1\r\n\r\n",
    b"GET /\x00stats HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET /stats HTTP/1.1\r\n" + HOST + b"X: a\x00b\r\n\r\n",
    b"GET /stats HTTP/1.1\r\n" + HOST + b" folded: x\r\n\r\n",
    b"GET /stats HTTP/1.1\r\n" + HOST + b"No colon\r\n\r\n",
    b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 20_000 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + HOST + b"X: y\r\n" * 2000 + b"\r\n",
    b"POST /api/session HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n\r\n",
    b"POST /api/session HTTP/1.1\r\n" + HOST + b"Content-Length: 1e3\r\n\r\n",
    b"POST /api/session HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nx",
    b"POST /api/session HTTP/1.1\r\n"
    + HOST
    + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /api/session HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n",
    b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
)  # fmt: skip


@pytest.mark.parametrize("sent", BROKEN, ids=range(len(BROKEN)))
async def test_what_is_no_request_is_refused_without_an_echo(sent: bytes) -> None:
    async with open_port(LOOPBACK) as port:
        answer = await port.raw(sent)
        assert re.match(rb"HTTP/\d\.\d 4\d\d ", answer), answer
        assert b"aiohttp" not in answer
        assert b"Python" not in answer
        assert b"script" not in answer
        assert b"nosniff" in answer
        assert await port.status("/livez") == 200


async def test_who_leaves_in_the_midst_of_it_is_no_error(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    async with open_port(GUARDED) as port:
        head = b"POST /api/session HTTP/1.1\r\n" + HOST
        for begun in (
            b"GET /sta",
            head + b"Content-Length: 9\r\n\r\n{",
            head + b"Transfer-Encoding: chunked\r\n\r\n1\r\n",
        ):
            _, writer = await asyncio.open_connection("127.0.0.1", port.number)
            writer.write(begun)
            assert await port.status("/livez") == 200
            writer.transport.abort()
            assert await port.status("/livez") == 200
    assert "Traceback" not in capsys.readouterr().out
    assert caplog.records == []


async def test_a_thousand_malformed_requests_are_a_line_or_two(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    before = metrics.http_refused.labels("malformed")._value.get()
    async with open_port(LOOPBACK) as port:
        for _ in range(50):
            await asyncio.gather(*(port.raw(b"\x1b[2J\xff" * 9 + b"\r\n\r\n") for _ in range(20)))
    assert metrics.http_refused.labels("malformed")._value.get() >= before + 1000
    assert [record for record in caplog.records if record.name.startswith("aiohttp")] == []
    told = capsys.readouterr().out
    assert 1 <= told.count("a request was no HTTP") <= 3
    assert "Traceback" not in told
    assert "\x1b[2J" not in told


@pytest.mark.parametrize(
    ("method", "status"),
    [("OPTIONS", 405), ("PUT", 405), ("DELETE", 405), ("TRACE", 405), ("PROPFIND", 405)],
)
async def test_other_methods(method: str, status: int) -> None:
    async with open_port(LOOPBACK) as port:
        assert await port.status("/stats", method) == status
        assert await port.status("/stats", "HEAD") == 200
        assert b" 400 " in await port.raw(b"CONNECT evil:443 HTTP/1.1\r\n" + HOST + b"\r\n")
        assert b" 400 " in await port.raw(b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n")


async def test_no_protocol_is_switched() -> None:
    async with open_port(LOOPBACK) as port:
        asked = b"GET /events HTTP/1.1\r\n" + HOST + b"Connection: Upgrade, HTTP2-Settings\r\n"
        for kind in (b"websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x", b"h2c"):
            answer = await port.raw(asked + b"Upgrade: " + kind + b"\r\n\r\n")
            assert b" 101 " not in answer


@pytest.mark.parametrize(
    "path",
    [
        "/assets/%2e%2e/page.py",
        "/assets/..%2f..%2fpage.py",
        "/assets/%2e%2e%2f%2e%2e%2f%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/assets/page.js%00.html",
        f"/media/{ID}/%2e%2e/%2e%2e/streams/a.mp4",
        f"/media/{ID}/..%5c..%5cx.m3u8",
        "/media/%2e%2e/master.m3u8",
        "/watch/%3Cscript%3E",
        "//evil.example/%2e%2e",
    ],
)
async def test_no_path_leads_out(path: str) -> None:
    async with open_port(LOOPBACK) as port:
        answer = await port.raw(f"GET {path} HTTP/1.1\r\n".encode() + HOST + b"\r\n")
        assert b" 404 " in answer.splitlines()[0]
        assert b"<script>" not in answer


async def test_ranges_beyond_reason() -> None:
    async with open_port(LOOPBACK) as port:
        many = ",".join(f"{n}-{n}" for n in range(1000))
        for asked in (many, "0-" + "9" * 19, "9" * 19 + "-", "-" + "9" * 19, "5-2", "0-0," * 1000):
            told = await port.status(f"/media/{ID}/master.m3u8", Range=f"bytes={asked}")
            assert told in (200, 206, 400, 416), asked


async def test_a_body_that_unfolds_is_not_unfolded() -> None:
    bomb = gzip.compress(bytes(64 << 20))
    async with open_port(GUARDED) as port:
        head = f"Content-Length: {len(bomb)}\r\nContent-Encoding: gzip\r\n\r\n".encode()
        answer = await port.raw(b"POST /api/session HTTP/1.1\r\n" + HOST + head + bomb)
        assert b" 400 " in answer
        assert b"64" not in answer


async def test_a_body_that_is_larger_than_any_of_ours() -> None:
    async with open_port(GUARDED) as port:
        for head in (
            b"Content-Length: 18446744073709551615\r\n\r\n",
            b"Content-Length: 70000\r\n\r\n",
        ):
            sent = b"POST /api/session HTTP/1.1\r\n" + HOST + head + b"x" * 70_000
            assert re.match(rb"HTTP/1\.1 4\d\d ", await port.raw(sent))
        expecting = b"POST /api/session HTTP/1.1\r\n" + HOST + b"Content-Length: 9\r\nExpect: "
        assert b" 100 " in await port.raw(expecting + b"100-continue\r\n\r\n")
        answer = await port.raw(expecting + b"<script>\r\n\r\n")
        assert b" 417 " in answer
        assert b"script" not in answer
        for body in (b"[" * 60_000, b'"x"', b"{}", b'{"token": 5}', b"\xff", b""):
            assert (await port.session.post("/api/session", data=body)).status in (400, 415)


async def test_pipelined_requests_are_answered_in_turn_and_bounded() -> None:
    async with open_port(GUARDED) as port:
        one = b"GET /livez HTTP/1.1\r\n" + HOST + b"\r\n"
        assert (await port.raw(one * 200)).count(b"HTTP/1.1 200") == 200
        smuggled = b"POST " + CHANGE.encode() + b" HTTP/1.1\r\n" + HOST + b"\r\n"
        assert (await port.raw(one + smuggled + one)).count(b" 401 ") == 1
        assert port.changes == []


async def test_every_answer_has_the_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = {
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Server": "CefMP4",
    }
    asked: tuple[tuple[str, str, dict[str, str]], ...] = (
        ("GET", "/", {}),
        ("GET", "/login", {}),
        ("GET", "/assets/page.js", {}),
        ("GET", "/stats", {}),
        ("GET", "/events", {}),
        ("GET", "/metrics", {}),
        ("GET", f"/media/{ID}/master.m3u8", {}),
        ("GET", f"/media/{ID}/master.m3u8", {"Range": "bytes=99-"}),
        ("GET", "/nothing", {}),
        ("PUT", "/stats", {}),
        ("POST", CHANGE, {}),
        ("GET", "/stats", {"Host": "evil.example"}),
        ("GET", "/stats", {"Expect": "what"}),
        ("GET", "/stats", {"Authorization": "Bearer wrong"}),
    )
    async with open_port(GUARDED) as port:
        for method, path, headers in asked:
            async with port.session.request(method, path, headers=headers) as response:
                told = {name: response.headers.get(name) for name in wanted}
                assert told == wanted, (method, path)
                assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]
                assert "Access-Control-Allow-Origin" not in response.headers


async def test_what_goes_wrong_here_tells_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_given: object) -> None:
        raise RuntimeError(f"secret {TOKEN}")

    monkeypatch.setattr("cefmp4.web.api.most_telling", fail)
    async with open_port(LOOPBACK) as port, port.session.get("/api/streams") as response:
        assert response.status == 500
        assert await response.json() == {"error": "this went wrong here; the log says more"}
    assert "a request was not answered" in capsys.readouterr().out
