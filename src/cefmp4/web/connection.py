"""One connection, on top of aiohttp's: every answer leaves through it, hardened and within a limit
of time, and what is no HTTP is one line of the log instead of a traceback."""

import asyncio
import time
from typing import TYPE_CHECKING, Any

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from cefmp4.descriptors import RAN_OUT
from cefmp4.web import answers

if TYPE_CHECKING:
    from cefmp4.web.door import Door

log = structlog.get_logger()

# A request's head must be there so soon after the connection, or after the answer before it; an
# unused connection is kept as long.
HEAD_S = 30.0
LINGER_S = 2.0  # for a body that nobody asked for
SLOW_S = 20.0  # for an answer that is not sent piece by piece
# The client went away or garbled its body: that is its matter.
_OF_THE_CLIENT = (HttpProcessingError, web.RequestPayloadError, ConnectionError)


class Connection(web.RequestHandler):
    """`since`: when it began to do what it does, wait for a request or answer one."""

    __slots__ = ("_door", "address", "is_answering", "is_stalled", "since")

    def __init__(self, server: web.Server, door: "Door", address: str) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=HEAD_S,
            lingering_time=LINGER_S,
            auto_decompress=False,  # nobody has reason to send us what unfolds
            access_log=None,  # type: ignore[arg-type]
        )
        self._door = door
        self.address = address
        self.is_answering = False
        self.is_stalled = False
        self.since = time.monotonic()

    def begin(self) -> None:
        self.is_answering, self.since = True, time.monotonic()

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._door.forget(self)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.is_stalled = True

    def resume_writing(self) -> None:
        super().resume_writing()
        self.is_stalled = False

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        if isinstance(resp, web.HTTPError):  # raised before any code of ours ran
            resp = answers.problem_of_http(resp)
        if not resp.prepared:
            answers.harden(resp)
        try:
            async with asyncio.timeout(SLOW_S):
                return await super().finish_response(request, resp, start_time)
        except TimeoutError:
            self._door.cut_off(self)
            return resp, True
        finally:
            self.is_answering, self.since = False, time.monotonic()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        response = self._told(request, status, exc, message)
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun: it can only be cut off")
        response.force_close()
        return response

    def _told(
        self, request: web.BaseRequest, status: int, error: BaseException | None, message: Any
    ) -> web.Response:
        if status == 400 or isinstance(error, _OF_THE_CLIENT):
            detail = str(message or error or "").partition("\n")[0]
            self._door.complaints.note("malformed", self.address, detail)
            return answers.problem(400, "this is no request that can be understood")
        if isinstance(error, OSError) and error.errno in RAN_OUT:
            self._door.complaints.note("descriptors", self.address)
            return answers.problem(503, "there are too many open files: try again")
        log.error("a request was not answered", url_path=request.path, exc_info=error)
        return answers.problem(status, "this went wrong here; the log says more")
