"""A web server with one file, which knows ranges, keeps a pace, and can hang up in the middle."""

import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from tests.writers.recording import Pace, pieces


class HttpSource:
    def __init__(self, content: bytes, bytes_per_second: float) -> None:
        self.cut_after: int | None = None  # bytes of a body after which it hangs up
        self._content = content
        self._rate = bytes_per_second
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        assert self._server
        return f"http://127.0.0.1:{self._server.server_port}/recording.mp4"

    def __enter__(self) -> Self:
        source = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None:
                """Nobody reads it."""

            def do_GET(self) -> None:
                source.answer(self)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, name="http source").start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server
        self._server.shutdown()
        self._server.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        size = len(self._content)
        asked = re.match(r"bytes=(\d+)-$", request.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        request.send_response(206 if asked else 200)
        if asked:
            request.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        request.send_header("Accept-Ranges", "bytes")
        request.send_header("Content-Length", str(size - start))
        request.end_headers()
        pace = Pace(self._rate)
        for _, piece in pieces(self._content[start : self._end()]):
            request.wfile.write(piece)
            pace.passed(len(piece))

    def _end(self) -> int:
        return len(self._content) if self.cut_after is None else self.cut_after
