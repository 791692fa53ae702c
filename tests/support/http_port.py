"""The HTTP port as attackers meet it: the server of the product over a real socket, with one
recording in it, and the bytes that they send."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
from awscrt.checksums import crc64nvme
from pydantic import SecretStr
from tests.support.fake_store import FakeObjectStore

from cefmp4.app.engine import NoJobs
from cefmp4.config.page import PageSettings
from cefmp4.model.stream import Stream, StreamState
from cefmp4.model.view import StreamView, view_of_record
from cefmp4.web import page
from cefmp4.web.api import RecordingApi, StreamApi
from cefmp4.web.feed import Feed
from cefmp4.web.job_feed import JobFeed, JobFigures
from cefmp4.web.listener import listening
from cefmp4.web.media import Media
from cefmp4.web.probes import Health, Probes

ID = "20260101T000000Z-0badcafe"
TOKEN = "sixteen characters"
LOOPBACK = PageSettings()
GUARDED = PageSettings(api_token=SecretStr(TOKEN))
WIDE = PageSettings(
    publish_host="0.0.0.0", api_token=SecretStr(TOKEN), http_allowed_hosts=("recorder.lan",)
)
WIDE_WITHOUT_TOKEN = PageSettings(publish_host="0.0.0.0")
VIEW = view_of_record(
    Stream(id=ID, relpath="a.mp4", state=StreamState.HANDED_OVER, part_base=1, key="streams/a.mp4")
)
READS = (
    "/stats",
    "/events",
    "/api/streams",
    f"/api/streams/{ID}",
    "/api/recordings",
    "/api/recordings?path=a.mp4",
    f"/media/{ID}/master.m3u8",
)
PAGES = ("/", f"/watch/{ID}")
OPEN = ("/metrics", "/livez", "/readyz", "/healthz")
CHANGE = f"/api/streams/{ID}/retry"


@dataclass(slots=True)
class Port:
    number: int
    session: aiohttp.ClientSession
    changes: list[str] = field(default_factory=list)

    async def status(self, path: str, method: str = "GET", **headers: str) -> int:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.session.request(method, path, headers=named) as response:
            return response.status

    async def log_in(self, token: str, **headers: str) -> aiohttp.ClientResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.session.post("/api/session", json={"token": token}, headers=named)

    async def raw(self, sent: bytes) -> bytes:
        """All that comes back until the server closes, or has said nothing for a moment."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.number)
        received = b""
        try:
            writer.write(sent)
            while True:
                async with asyncio.timeout(10 if not received else 0.3):
                    block = await reader.read(1 << 16)
                if not block:
                    break
                received += block
        except (TimeoutError, ConnectionError):
            pass
        finally:
            writer.close()
        return received


@asynccontextmanager
async def open_port(
    settings: PageSettings, store: FakeObjectStore | None = None
) -> AsyncIterator[Port]:
    changes: list[str] = []

    async def find(stream_id: str) -> StreamView | None:
        return VIEW if stream_id == ID else None

    async def history(relpath: str, _limit: int) -> list[StreamView]:
        return [VIEW] if relpath == VIEW.relpath else []

    async def change(stream_id: str) -> None:
        changes.append(stream_id)

    store = store or FakeObjectStore()
    playlist = b"#EXTM3U\n"
    await store.put_object(
        f"hls/{ID}/master.m3u8",
        playlist,
        content_type="x/y",
        metadata={},
        crc64=crc64nvme(playlist),
    )
    desk = NoJobs()
    feed = Feed(lambda: [VIEW], JobFeed(desk), interval_s=0.02)
    routes = [
        *page.routes(),
        *Probes(Health).routes(),
        *StreamApi(
            lambda: [VIEW],
            Health,
            find=find,
            retry=change,
            forget=change,
            jobs=JobFigures(desk),
        ).routes(),
        *RecordingApi("cefmp4", lambda: [VIEW], history, desk).routes(),
        *feed.routes(),
        *Media(store, find).routes(),
    ]
    async with listening(settings, 0, routes) as number:
        url = f"http://127.0.0.1:{number}"
        # Cookies of an IP address, too.
        async with aiohttp.ClientSession(url, cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
            yield Port(number, session, changes)
