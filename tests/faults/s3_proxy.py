"""An HTTP/1.1 proxy before a real S3 server. It forwards every request, except those that one of
its rules picks: these it breaks the way the rule says. It counts both."""

import asyncio
import contextlib
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

BLOCK = 256 * 1024
POLL_S = 0.01
PROBE_PREFIX = ".cefmp4-probe/"  # what the service tries out at its start is no traffic of streams


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    target: str
    headers: dict[str, str]  # by lower-case name
    head: bytes
    operation: str
    key: str
    upload_id: str
    part: int

    @property
    def length(self) -> int:
        return int(self.headers.get("content-length", "0"))


@dataclass(slots=True)
class Reply:
    status: int
    head: bytes
    body: bytes


Fault = Callable[["Exchange"], Awaitable[bool]]  # whether the connection goes on


@dataclass(slots=True, kw_only=True)
class Rule:
    """Picks `times` requests of `operation` after letting `skip` of them pass."""

    fault: Fault
    operation: str = ""  # "" is any
    times: int = 1
    skip: int = 0
    key_part: str = ""
    hits: int = 0

    def picks(self, request: Request) -> bool:
        if self.hits >= self.times or self.key_part not in request.key:
            return False
        if self.operation and request.operation != self.operation:
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.hits += 1
        return True


@dataclass(slots=True)
class Upstream:
    port: int
    reader: asyncio.StreamReader | None = None
    writer: asyncio.StreamWriter | None = None

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self.reader is None or self.writer is None:
            self.reader, self.writer = await asyncio.open_connection(
                "127.0.0.1", self.port, limit=4 * BLOCK
            )
        return self.reader, self.writer

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None


@dataclass(slots=True)
class Exchange:
    """One request on its way, and what a fault can do with it."""

    request: Request
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    upstream: Upstream
    unread: int = field(init=False)

    def __post_init__(self) -> None:
        self.unread = self.request.length

    async def read_body(self, limit: int | None = None) -> bytes:
        count = self.unread if limit is None else min(limit, self.unread)
        data = await self.reader.readexactly(count)
        self.unread -= count
        return data

    async def forward(self) -> bool:
        """As if there were no proxy."""
        reply = await self.fetch()
        self.writer.write(reply.head + reply.body)
        await self.writer.drain()
        return True

    async def fetch(self, body: bytes | None = None) -> Reply:
        """Hands the request on, with another body if told so, and waits for the answer."""
        _, writer = await self.upstream.open()
        writer.write(_without_expect(self.request.head))
        if body is not None:
            writer.write(body)
        while body is None and self.unread:
            writer.write(await self.read_body(BLOCK))
            await writer.drain()
        await writer.drain()
        return await self._read_reply()

    async def cut_off_upstream(self, body: bytes) -> None:
        """The server sees the beginning of the request, and then its end."""
        _, writer = await self.upstream.open()
        writer.write(_without_expect(self.request.head) + body)
        await writer.drain()
        self.upstream.close()

    async def answer(self, status: int, code: str, headers: str = "") -> bool:
        await self.read_body()
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>"
        if self.request.method == "HEAD":
            body = ""
        head = f"HTTP/1.1 {status} Planted\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
        self.writer.write((head + body).encode())
        await self.writer.drain()
        return True

    def reset(self) -> bool:
        raw = self.writer.get_extra_info("socket")
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()
        return False

    async def _read_reply(self) -> Reply:
        reader, _ = await self.upstream.open()
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        headers = _headers_of(head)
        if self.request.method == "HEAD" or status in (204, 304):
            body = b""
        elif "content-length" in headers:
            body = await reader.readexactly(int(headers["content-length"]))
        elif headers.get("transfer-encoding") == "chunked":
            body = await _read_chunks(reader)
        else:
            body = await reader.read()
        if headers.get("connection", "").lower() == "close":
            self.upstream.close()
        return Reply(status, head, body)


class S3Proxy:
    def __init__(self, upstream_port: int) -> None:
        self.upstream_port = upstream_port
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.StreamWriter] = set()
        self.port = 0
        self.rules: list[Rule] = []
        self.calls: Counter[str] = Counter()
        self.part_bytes = 0  # sent by clients as bodies of parts
        self.cut_bytes = 0  # of these, parts whose client went away in the middle of the body

    @property
    def whole_part_bytes(self) -> int:
        """Without the parts that a kill cut short: nobody can help sending those again."""
        return self.part_bytes - self.cut_bytes

    async def start(self) -> None:
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, limit=4 * BLOCK
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Connections are refused from now on, and those that exist are cut."""
        if self._server is None:
            return
        self._server.close()
        for writer in list(self._connections):
            writer.transport.abort()
        await asyncio.sleep(0)
        self._server = None

    def add(self, fault: Fault, operation: str = "", *, times: int = 1, skip: int = 0) -> Rule:
        rule = Rule(fault=fault, operation=operation, times=times, skip=skip)
        self.rules.append(rule)
        return rule

    async def seen(self, operation: str, count: int = 1, timeout_s: float = 30) -> None:
        async with asyncio.timeout(timeout_s):
            while self.calls[operation] < count:  # noqa: ASYNC110
                await asyncio.sleep(POLL_S)

    async def broken(self, rule: Rule, count: int | None = None, timeout_s: float = 30) -> None:
        """Waits until the rule has done its work."""
        async with asyncio.timeout(timeout_s):
            while rule.hits < (rule.times if count is None else count):  # noqa: ASYNC110
                await asyncio.sleep(POLL_S)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream = Upstream(self.upstream_port)
        self._connections.add(writer)
        try:
            while await self._serve_one(reader, writer, upstream):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            writer.transport.abort()
        finally:
            self._connections.discard(writer)
            upstream.close()
            writer.close()

    async def _serve_one(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, upstream: Upstream
    ) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        request = _parse(head)
        self.calls[request.operation] += 1
        if request.operation == "UploadPart":
            self.part_bytes += request.length
        if "expect" in request.headers:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        exchange = Exchange(request, reader, writer, upstream)
        rule = next((rule for rule in self.rules if rule.picks(request)), None)
        try:
            return await (exchange.forward() if rule is None else rule.fault(exchange))
        finally:
            if rule is None and request.operation == "UploadPart" and exchange.unread:
                self.cut_bytes += request.length


def _parse(head: bytes) -> Request:
    method, target, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
    place = urlsplit(target)
    query = parse_qs(place.query, keep_blank_values=True)
    _, _, key = place.path.lstrip("/").partition("/")
    return Request(
        method=method,
        target=target,
        headers=_headers_of(head),
        head=head,
        operation=_operation(method, key, query, _headers_of(head)),
        key=unquote(key),
        upload_id=query.get("uploadId", [""])[0],
        part=int(query.get("partNumber", ["0"])[0]),
    )


def _operation(method: str, key: str, query: dict[str, list[str]], headers: dict[str, str]) -> str:
    if key.startswith(PROBE_PREFIX):
        return "probe"
    if "uploadId" in query:
        copies = "x-amz-copy-source" in headers
        return {
            "PUT": "UploadPartCopy" if copies else "UploadPart",
            "POST": "CompleteMultipartUpload",
            "DELETE": "AbortMultipartUpload",
            "GET": "ListParts",
        }[method]
    if "uploads" in query:
        return "CreateMultipartUpload" if method == "POST" else "ListMultipartUploads"
    if not key:
        return "ListObjectsV2" if method == "GET" else f"{method} bucket"
    names = {"PUT": "PutObject", "GET": "GetObject", "HEAD": "HeadObject"}
    return names.get(method, "DeleteObject")


def _headers_of(head: bytes) -> dict[str, str]:
    lines = head.decode("latin-1").split("\r\n")[1:]
    pairs = (line.partition(":") for line in lines if line)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def _without_expect(head: bytes) -> bytes:
    lines = head.split(b"\r\n")
    return b"\r\n".join(line for line in lines if not line.lower().startswith(b"expect:"))


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    """The chunks as they are on the wire, with their framing."""
    raw = b""
    while True:
        line = await reader.readline()
        size = int(line.split(b";")[0], 16)
        raw += line + await reader.readexactly(size + 2)
        if size == 0:
            return raw
