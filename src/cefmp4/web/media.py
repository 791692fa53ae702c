"""Playback without opening the bucket: the HLS of a recording, and the recording itself, by ranges.

Only names that an encode makes lead to a key, and only to one of that recording. Bytes come from
the store piece by piece: a viewer who is slow holds one piece, and no connection to S3."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import PurePosixPath
from urllib.parse import quote

import structlog
from aiohttp import web

from cefmp4.errors import CefError, ServerUnreachableError
from cefmp4.model.names import content_type_of, is_subject
from cefmp4.model.object import StoredObject
from cefmp4.model.stream import PROVEN_STATES
from cefmp4.model.view import StreamView
from cefmp4.outputs.names import MASTER, hls_prefix
from cefmp4.ports.store import ObjectStore
from cefmp4.web.answers import SECURITY_HEADERS
from cefmp4.web.questions import asked_range, is_known

log = structlog.get_logger()

PIECE_BYTES = 512 * 1024
MAX_RESPONSES = 64  # each may hold two pieces: one that is read, one on its way to a slow viewer
READS_AT_ONCE = 4  # uploads need the connections to S3 more
STORE_S = 10.0  # a player asks again; it should not wait for a minute to be told that
SLOW_S = 60.0  # for one piece; a player that is paused for longer asks again for what it lacks

# What lies under hls/<id>/ for players: see docs/hls.md. What workers need there is not theirs.
_NAME = re.compile(
    r"master\.m3u8"
    r"|images\.\w{1,40}/(?:poster\.jpg|sprite\.jpg|thumbnails\.vtt)"
    r"|[a-z0-9][a-z0-9-]{0,60}\.\w{1,40}/(?:index\.m3u8|iframes\.m3u8|init\.mp4|seg_\d{5,9}\.m4s)",
    re.ASCII,
)
_UNCHANGING = "private, max-age=31536000, immutable"  # the name carries the attempt
_ASK_AGAIN = "private, no-cache"
# A browser that opens a recording by itself makes a page around it.
_PLAYABLE = (
    "default-src 'none'; media-src 'self'; style-src 'unsafe-inline'; frame-ancestors 'none'"
)


Find = Callable[[str], Awaitable[StreamView | None]]  # a stream by its id


class Media:
    def __init__(self, store: ObjectStore, find: Find) -> None:
        self._store = store
        self._find = find
        self._reads = asyncio.Semaphore(READS_AT_ONCE)
        self._responses = 0

    def routes(self) -> list[web.AbstractRouteDef]:
        """The guard looks at the ticket."""
        return [
            web.get(f"{place}/{{id}}/{what}", serve)
            for place in ("/media", "/player/{ticket}")
            for what, serve in (("file", self._serve_recording), ("{name:.+}", self._serve_hls))
        ]

    async def _serve_hls(self, request: web.Request) -> web.StreamResponse:
        stream_id, name = request.match_info["id"], request.match_info["name"]
        if not (is_subject(stream_id) and _NAME.fullmatch(name)):
            raise web.HTTPNotFound(text="there is no such file")
        stored = await look_soon(self._store, hls_prefix(stream_id) + name)
        if stored is None:
            reason = f"it is not there, or not made yet: /watch/{stream_id} tells more"
            raise web.HTTPNotFound(text=reason)
        headers = {
            "Content-Type": content_type_of(name),
            "Cache-Control": _ASK_AGAIN if name == MASTER else _UNCHANGING,
        }
        return await self._answer(request, stored, headers)

    async def _serve_recording(self, request: web.Request) -> web.StreamResponse:
        """As it was recorded, for browsers that play its format, and to be kept."""
        stream_id = request.match_info["id"]
        view = await self._find(stream_id) if is_subject(stream_id) else None
        if view is None:
            raise web.HTTPNotFound(text="there is no such recording")
        is_stored = view.state in PROVEN_STATES
        stored = await look_soon(self._store, view.key) if is_stored else None
        if stored is None:
            raise web.HTTPNotFound(text="the recording is not stored yet, or not any more")
        kind = stored.content_type
        # A page of somebody's must not run as ours.
        is_media = kind.startswith(("video/", "audio/"))
        name = quote(PurePosixPath(view.relpath).name, errors="replace", safe="")
        how = "inline" if is_media else "attachment"
        headers = {
            "Content-Type": kind if is_media else "application/octet-stream",
            "Content-Disposition": f"{how}; filename*=UTF-8''{name}",
            "Content-Security-Policy": _PLAYABLE,
            "Cache-Control": _ASK_AGAIN,
        }
        return await self._answer(request, stored, headers)

    async def _read(self, key: str, piece: range) -> bytes:
        async with self._reads, _soon():
            data = await self._store.read(key, piece.start, piece.stop)
        if len(data) != len(piece):
            raise ServerUnreachableError(f"S3 gave {len(data)} of {len(piece)} bytes of {key}")
        return data

    async def _answer(
        self, request: web.Request, stored: StoredObject, headers: dict[str, str]
    ) -> web.StreamResponse:
        etag = f'"{stored.etag}"'
        headers = SECURITY_HEADERS | headers | {"ETag": etag, "Accept-Ranges": "bytes"}
        if is_known(request.headers, etag):
            return web.Response(status=304, headers=headers)
        is_head = request.method == "HEAD"  # which knows no ranges
        asked = None if is_head else asked_range(request.headers, stored.size, etag)
        if asked is None:
            status, sent = 200, range(stored.size)
        elif asked:
            status, sent = 206, asked
            headers["Content-Range"] = f"bytes {sent.start}-{sent.stop - 1}/{stored.size}"
        else:
            headers["Content-Range"] = f"bytes */{stored.size}"
            return web.Response(status=416, headers=headers)
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = len(sent)
        if is_head or not sent:
            await response.prepare(request)
            return response
        if self._responses >= MAX_RESPONSES:
            raise web.HTTPServiceUnavailable(text="too many viewers at this moment: try again")
        self._responses += 1
        try:
            await self._send(request, response, stored.key, sent)
        finally:
            self._responses -= 1
        return response

    async def _send(
        self, request: web.Request, response: web.StreamResponse, key: str, sent: range
    ) -> None:
        """The first piece is read before anything is promised: after that, what goes wrong can only
        be told by cutting the connection, so that no player takes a part for the whole."""
        pieces = [sent[start : start + PIECE_BYTES] for start in range(0, len(sent), PIECE_BYTES)]
        data = await self._read(key, pieces[0])
        try:
            await response.prepare(request)
            for following in [*pieces[1:], None]:
                async with asyncio.timeout(SLOW_S):
                    await response.write(data)
                if following:
                    data = await self._read(key, following)
            await response.write_eof()
        except (CefError, ConnectionError, TimeoutError) as error:
            log.debug("playback was cut off", key=key, reason=repr(error))
            if request.transport is not None:
                request.transport.abort()


async def look_soon(store: ObjectStore, key: str) -> StoredObject | None:
    """ServerUnreachableError rather than a long wait."""
    async with _soon():
        return await store.head(key)


@asynccontextmanager
async def _soon() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(STORE_S):
            yield
    except TimeoutError:
        raise ServerUnreachableError("S3 does not answer") from None
