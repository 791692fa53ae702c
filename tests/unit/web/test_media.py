"""Playback over a real socket: ranges, what is not there, what is none of a viewer's business."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from awscrt.checksums import crc64nvme
from tests.support.fake_store import FakeObjectStore

from cefmp4.config.page import PageSettings
from cefmp4.errors import AccessDeniedError, ServerUnreachableError
from cefmp4.model.stream import Stream, StreamState
from cefmp4.model.view import StreamView, view_of_record
from cefmp4.web import media
from cefmp4.web.listener import listening
from cefmp4.web.media import PIECE_BYTES, Media

ID = "20260101T000000Z-0badcafe"
OTHER = "20260101T000000Z-00000000"
SEGMENT = "h264-720p.a17/seg_00000.m4s"
BYTES = os.urandom(3 * PIECE_BYTES + 7)
FILE = os.fsdecode(b'a"\n\xff\xc3\xa9.mp4')


@asynccontextmanager
async def serving(
    store: FakeObjectStore, view: StreamView | None = None, **options: Any
) -> AsyncIterator[aiohttp.ClientSession]:
    async def find(stream_id: str) -> StreamView | None:
        return view if view and view.id == stream_id else None

    async with (
        listening(PageSettings(), 0, Media(store, find).routes()) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}", **options) as session,
    ):
        yield session


async def put(store: FakeObjectStore, key: str, data: bytes, content_type: str = "x/y") -> None:
    await store.put_object(key, data, content_type=content_type, metadata={}, crc64=crc64nvme(data))


@pytest.fixture
async def store() -> FakeObjectStore:
    store = FakeObjectStore()
    await put(store, f"hls/{ID}/master.m3u8", b"#EXTM3U\n")
    await put(store, f"hls/{ID}/{SEGMENT}", BYTES)
    await put(store, f"hls/{ID}/images.a17/poster.jpg", b"jpeg")
    await put(store, f"hls/{ID}/images.a17/thumbnails.vtt", b"WEBVTT")
    await put(store, f"hls/{ID}/result.json", b"{}")
    await put(store, f"hls/{ID}/attempt.a17/master.m3u8", b"staged")
    await put(store, "streams/secret.mp4", b"secret")
    return store


async def test_a_playlist_and_its_segments(store: FakeObjectStore) -> None:
    async with serving(store) as session:
        async with session.get(f"/media/{ID}/master.m3u8") as response:
            assert await response.read() == b"#EXTM3U\n"
            assert response.headers["Content-Type"] == "application/vnd.apple.mpegurl"
            assert response.headers["Cache-Control"] == "private, no-cache"
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert response.headers["Cross-Origin-Resource-Policy"] == "same-origin"
            assert "Access-Control-Allow-Origin" not in response.headers
        async with session.get(f"/media/{ID}/{SEGMENT}") as response:
            assert await response.read() == BYTES
            assert response.headers["Content-Type"] == "video/iso.segment"
            assert "immutable" in response.headers["Cache-Control"]
            etag = response.headers["ETag"]
        async with session.head(f"/media/{ID}/{SEGMENT}", headers={"Range": "bytes=0-1"}) as told:
            assert (told.status, int(told.headers["Content-Length"])) == (200, len(BYTES))
            assert (told.headers["ETag"], told.headers["Accept-Ranges"]) == (etag, "bytes")
        again = {"If-None-Match": etag}
        async with session.get(f"/media/{ID}/{SEGMENT}", headers=again) as response:
            assert (response.status, await response.read()) == (304, b"")
            assert response.headers["ETag"] == etag
        for name, kind in (("poster.jpg", "image/jpeg"), ("thumbnails.vtt", "text/vtt")):
            async with session.get(f"/media/{ID}/images.a17/{name}") as response:
                assert (response.status, response.content_type) == (200, kind)


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=5-", 5, len(BYTES)),
        ("bytes=-9", len(BYTES) - 9, len(BYTES)),
        (f"bytes={PIECE_BYTES - 1}-{2 * PIECE_BYTES}", PIECE_BYTES - 1, 2 * PIECE_BYTES + 1),
    ],
)
async def test_parts(store: FakeObjectStore, asked: str, start: int, end: int) -> None:
    async with (
        serving(store) as session,
        session.get(f"/media/{ID}/{SEGMENT}", headers={"Range": asked}) as response,
    ):
        assert response.status == 206
        assert response.headers["Content-Range"] == f"bytes {start}-{end - 1}/{len(BYTES)}"
        assert await response.read() == BYTES[start:end]


async def test_a_part_beyond_the_end(store: FakeObjectStore) -> None:
    headers = {"Range": f"bytes={len(BYTES)}-"}
    async with (
        serving(store) as session,
        session.get(f"/media/{ID}/{SEGMENT}", headers=headers) as response,
    ):
        assert response.status == 416
        assert response.headers["Content-Range"] == f"bytes */{len(BYTES)}"


@pytest.mark.parametrize(
    "path",
    [
        f"{ID}/result.json",
        f"{ID}/attempt.a17/master.m3u8",
        f"{ID}/attempt.a17/result.json",
        f"{ID}/../../streams/secret.mp4",
        f"{ID}/..%2f..%2fstreams%2fsecret.mp4",
        f"{ID}/%2e%2e/%2e%2e/streams/secret.mp4",
        f"{ID}/h264-720p.a17/..%2f..%2f..%2fstreams/secret.mp4",
        f"{ID}/h264-720p.a17/../master.m3u8",
        f"{ID}//master.m3u8",
        f"{ID}/master.m3u8%00",
        f"{ID}/master.m3u8%0a",
        f"{ID}/master.m3u8/",
        f"{ID}/%252e%252e/master.m3u8",
        f"{ID}/",
        f"{ID}%2f{SEGMENT}",
        f"{ID}x/master.m3u8",
        "../streams/secret.mp4",
        "..%2fstreams/secret.mp4",
        f"..%2fhls%2f{ID}/master.m3u8",
        "%2e%2e/secret.mp4",
        "*/master.m3u8",
        "s1/master.m3u8",
        "streams/secret.mp4",
        f"{OTHER}/../{ID}/master.m3u8",
    ],
)
async def test_no_other_name_leads_to_a_key(store: FakeObjectStore, path: str) -> None:
    """As attackers write them: no client makes them tidy first."""
    before = len(store.journal)
    async with serving(store) as session:
        port = session._base_url.port if session._base_url else 0
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        request = f"GET /media/{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        writer.write(request.encode())
        answer = await reader.read()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 404 "), answer
    assert b"secret" not in answer
    assert store.journal[before:] == []  # the store was not even asked


async def test_what_is_not_made_yet(store: FakeObjectStore) -> None:
    async with (
        serving(store) as session,
        session.get(f"/media/{OTHER}/master.m3u8") as response,
    ):
        assert response.status == 404
        assert f"/watch/{OTHER}" in (await response.json())["error"]
        assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("operation", ["head", "read"])
@pytest.mark.parametrize("error", [ServerUnreachableError("gone"), AccessDeniedError("no")])
async def test_a_store_that_is_away(
    store: FakeObjectStore, operation: str, error: Exception
) -> None:
    store.fail(operation, error)
    async with (
        serving(store) as session,
        session.get(f"/media/{ID}/{SEGMENT}") as response,
    ):
        assert response.status == 503
        assert (await response.json())["error"] == str(error)


async def test_a_store_that_hangs(store: FakeObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "STORE_S", 0.05)
    with store.pause("head"):
        async with (
            serving(store) as session,
            session.get(f"/media/{ID}/{SEGMENT}") as response,
        ):
            assert response.status == 503


class BreakingStore(FakeObjectStore):
    """Gives the first piece of anything, and no more."""

    async def read(
        self, key: str, start: int = 0, end: int | None = None, *, etag: str = ""
    ) -> bytes:
        if start:
            raise ServerUnreachableError("gone")
        return await super().read(key, start, end, etag=etag)


async def test_what_breaks_off_does_not_look_whole() -> None:
    store = BreakingStore()
    await put(store, f"hls/{ID}/{SEGMENT}", BYTES)
    async with serving(store) as session, session.get(f"/media/{ID}/{SEGMENT}") as response:
        assert response.status == 200
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()


async def test_a_viewer_who_does_not_read_is_waited_for_and_costs_a_few_pieces(
    store: FakeObjectStore,
) -> None:
    """Back-pressure: no more is read from the store than the connection takes."""
    pieces = 128
    await put(store, f"hls/{ID}/{SEGMENT}", bytes(pieces * PIECE_BYTES))
    async with serving(store, read_bufsize=1024) as session:
        async with session.get(f"/media/{ID}/{SEGMENT}") as response:
            before = -1
            while before != (now := store.calls["read"]):
                before = now
                await asyncio.sleep(0.2)
            assert store.calls["read"] < pieces
            assert len(await response.read()) == pieces * PIECE_BYTES
        assert store.calls["read"] == pieces


async def test_a_viewer_who_never_reads_is_let_go(
    store: FakeObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media, "SLOW_S", 0.1)
    monkeypatch.setattr(media, "MAX_RESPONSES", 1)
    name = f"/media/{ID}/h264-720p.a17/seg_00001.m4s"
    await put(store, f"hls/{ID}/h264-720p.a17/seg_00001.m4s", bytes(64 << 20))
    async with serving(store, read_bufsize=1024) as session, session.get(name):
        async with session.get(f"/media/{ID}/{SEGMENT}") as refused:
            assert refused.status == 503
        async with asyncio.timeout(10):
            while True:
                async with session.get(f"/media/{ID}/{SEGMENT}") as again:
                    if again.status == 200:
                        assert await again.read() == BYTES
                        return
                await asyncio.sleep(0.02)


def view(state: StreamState = StreamState.HANDED_OVER) -> StreamView:
    record = Stream(id=ID, relpath=f"in/{FILE}", state=state, part_base=1, key="streams/r.mp4")
    return view_of_record(record)


async def test_the_recording_itself(store: FakeObjectStore) -> None:
    await put(store, "streams/r.mp4", BYTES, "video/mp4")
    headers = {"Range": "bytes=7-"}
    async with (
        serving(store, view()) as session,
        session.get(f"/media/{ID}/file", headers=headers) as response,
    ):
        assert response.status == 206
        assert await response.read() == BYTES[7:]
        assert response.content_type == "video/mp4"
        kept = response.headers["Content-Disposition"]
        assert kept.startswith("inline; filename*=UTF-8''a%22%0A")
        assert kept.isascii()


async def test_a_page_among_the_recordings_does_not_run_as_ours(store: FakeObjectStore) -> None:
    await put(store, "streams/r.mp4", b"<script>", "text/html")
    async with serving(store, view()) as session, session.get(f"/media/{ID}/file") as response:
        assert response.content_type == "application/octet-stream"
        assert response.headers["Content-Disposition"].startswith("attachment")


async def test_a_recording_that_is_not_stored(store: FakeObjectStore) -> None:
    async with serving(store, replace(view(StreamState.UPLOADING), key="streams/secret.mp4")) as s:
        for path in (f"/media/{ID}/file", f"/media/{OTHER}/file", "/media/s1/file"):
            async with s.get(path) as response:
                assert response.status == 404
    async with serving(store, view()) as s, s.get(f"/media/{ID}/file") as response:
        assert response.status == 404
