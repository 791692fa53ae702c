"""Feeds a port with what is nearly HTTP, and with what is none: PORT SEED SECONDS. Prints how many
connections it made. It runs as another user, from its source, with the modules that are loaded."""

import contextlib
import random
import socket
import struct
import sys
import time
from collections.abc import Callable

PATIENCE_S = 0.02
MOST_HELD = 60

draw = random.Random()
METHODS = (
    "GET", "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PRI", "get", "",
)  # fmt: skip
VERSIONS = ("HTTP/1.1", "HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "HTTP/1.1.1", "ICY", "")
PLACES = (
    "/", "/metrics", "/livez", "/readyz", "/healthz", "/stats", "/jobs/peek", "/events", "/login",
    "/api/session", "/api/streams", "/api/jobs", "/api/watch", "/watch/x", "/media/x/file",
    "/player/x/y/z", "/assets/page.js", "/api/streams/x/retry", "/api/jobs/x/cancel", "/jobs", "*",
    "http://localhost/", "//x/y", "localhost:80", "/%2e%2e/x",
)  # fmt: skip
QUERIES = ("", "?limit=1", "?limit=-1", "?state=x", "?limit=" + "9" * 400, "?%00", "?a=b&" * 99)
VALUES = (
    "localhost", "127.0.0.1", "[::1]", "evil.example", ":0", "[", "*", "null", "0", "-1", "1e9",
    "18446744073709551616", "chunked", "gzip, chunked", "100-continue", "close", "keep-alive",
    "upgrade", "websocket", "h2c", "cross-site", "same-origin", "Bearer x", "Basic eDp5",
    "bytes=0-", "bytes=-1", "bytes=9-1", 'W/"x"', "application/json", "text/plain", 'a=b;;;=;"',
)  # fmt: skip
NAMES = (
    "Host", "Content-Length", "Transfer-Encoding", "Content-Encoding", "Expect", "Connection",
    "Upgrade", "Origin", "Referer", "Sec-Fetch-Site", "Authorization", "Cookie", "Range",
    "If-None-Match", "If-Range", "Content-Type", "X-Timestamp", "X-Signature", "X",
    "Sec-WebSocket-Key", "Sec-WebSocket-Version", "X-Forwarded-For",
)  # fmt: skip
BODIES = (
    *(b"", b"{}", b'{"token": "x"}', b"0\r\n\r\n", b"5\r\nabcde\r\n"),
    *(b"\x1f\x8b\x08\x00", b"[" * 999),
)


def noise(most: int) -> bytes:
    return draw.randbytes(draw.randrange(most))


def header() -> bytes:
    name, value = draw.choice(NAMES).encode(), draw.choice(VALUES).encode()
    kind = draw.random()
    if kind < 0.05:
        value = noise(60)
    elif kind < 0.07:
        value *= draw.randrange(3000)
    return name + draw.choice((b": ", b":", b" : ", b"\t")) + value + b"\r\n"


def request() -> bytes:
    target = draw.choice(PLACES) + draw.choice(QUERIES)
    line = f"{draw.choice(METHODS)} {target} {draw.choice(VERSIONS)}\r\n".encode()
    known = b"Host: localhost\r\n" if draw.random() < 0.8 else b""
    more = b"".join(header() for _ in range(draw.choice((0, 1, 2, 5, 200))))
    return line + known + more + b"\r\n" + draw.choice(BODIES)


def cut(sent: bytes) -> bytes:
    return sent[: draw.randrange(len(sent) + 1)]


def flip(sent: bytes) -> bytes:
    changed = bytearray(sent)
    for _ in range(draw.randrange(1, 9)):
        changed[draw.randrange(len(changed))] = draw.randrange(256)
    return bytes(changed)


def stuff(sent: bytes) -> bytes:
    place = draw.randrange(len(sent))
    return sent[:place] + noise(3000) + sent[place:]


def pipeline(sent: bytes) -> bytes:
    return sent * draw.randrange(1, 40)


def keep(sent: bytes) -> bytes:
    return sent


CHANGES: tuple[Callable[[bytes], bytes], ...] = (keep, keep, cut, flip, stuff, pipeline)


def send(one: socket.socket, sent: bytes) -> None:
    """Whole or in pieces; and perhaps something of the answer is read."""
    while sent:
        size = draw.choice((1, 7, 700, 1 << 20)) if len(sent) < 2000 else 1 << 20
        one.sendall(sent[:size])
        sent = sent[size:]
    if draw.random() < 0.7:
        one.recv(draw.choice((1, 1000, 1 << 20)))


def main(port: int, seed: int, seconds: float) -> None:
    draw.seed(seed)
    until, held, made = time.monotonic() + seconds, list[socket.socket](), 0
    while time.monotonic() < until:
        one = socket.socket()
        one.settimeout(PATIENCE_S)
        with contextlib.suppress(OSError):
            one.connect(("127.0.0.1", port))
            made += 1
            send(one, draw.choice(CHANGES)(request()) if draw.random() < 0.9 else noise(9000))
        if draw.random() < 0.1:  # it goes with a reset
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if draw.random() < 0.2 and len(held) < MOST_HELD:
            held.append(one)
        else:
            one.close()
    sys.stdout.write(f"{made}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
