"""Whether a recording can be watched, as the player's page asks: on an engine in memory."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from awscrt.checksums import crc64nvme
from tests.support.fake_store import FakeObjectStore
from tests.support.memory_engine import MemoryEngine
from tests.support.pretence import Pretence, in_state, pretending, with_progress

from cefmp4.app.engine import DeskOnDemand
from cefmp4.config.page import PageSettings
from cefmp4.config.settings import Settings
from cefmp4.errors import ServerUnreachableError
from cefmp4.model.job import JobInput, JobKind, JobSpec, JobState
from cefmp4.model.stream import Stream, StreamState
from cefmp4.model.view import StreamView, view_of_record
from cefmp4.ports.jobs import JobDesk
from cefmp4.web.listener import listening
from cefmp4.web.watch import Watch

pytestmark = pytest.mark.integration

ID = "20260101T000000Z-0badcafe"
HOSTILE = "<img src=x onerror=alert(1)>\n\udcff.mp4"


@dataclass
class WatchPort:
    desk: JobDesk
    store: FakeObjectStore = field(default_factory=FakeObjectStore)
    views: list[StreamView] = field(default_factory=list)
    forgotten: list[StreamView] = field(default_factory=list)

    async def find(self, stream_id: str) -> StreamView | None:
        known = (*self.views, *self.forgotten)
        return next((view for view in known if view.id == stream_id), None)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[aiohttp.ClientSession]:
        settings = PageSettings()
        watch = Watch(
            self.store, self.desk, views=lambda: self.views, find=self.find, settings=settings
        )
        async with (
            listening(settings, 0, watch.routes()) as port,
            aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
        ):
            yield session

    async def told(self, stream_id: str = ID) -> tuple[int, Any]:
        async with self.serving() as session, session.get(f"/api/watch/{stream_id}") as response:
            return response.status, await response.json()

    async def submit(self, stream_id: str = ID, **params: str) -> None:
        source = JobInput(bucket="b", key="a.mp4")
        await self.desk.submit(
            JobSpec(subject=stream_id, kind=JobKind.HLS, input=source, params=params)
        )

    async def put(self, key: str, data: bytes = b"#EXTM3U") -> None:
        await self.store.put_object(
            key, data, content_type="x/y", metadata={}, crc64=crc64nvme(data)
        )


@pytest.fixture
def pretence() -> Pretence:
    return Pretence()


@pytest_asyncio.fixture
async def engine(tmp_path: Path, pretence: Pretence) -> AsyncIterator[MemoryEngine]:
    with pretending(tmp_path / "work", pretence) as host:
        engine = MemoryEngine(host)
        yield engine
        await engine.stop()


@pytest.fixture
def port(engine: MemoryEngine) -> WatchPort:
    return WatchPort(engine)


def view(state: StreamState = StreamState.HANDED_OVER, stream_id: str = ID) -> StreamView:
    return view_of_record(
        Stream(id=stream_id, relpath=HOSTILE, state=state, part_base=1, key="streams/a.mp4")
    )


async def test_from_the_upload_to_the_screen(port: WatchPort, pretence: Pretence) -> None:
    port.views = [view(StreamState.UPLOADING)]
    status, told = await port.told()
    assert (status, told["state"], told["name"]) == (200, "waiting", HOSTILE)
    assert (told["master"], told["recording"]) == (None, None)
    port.views = [view()]
    await port.submit("other", waits="1")
    await with_progress(port.desk, "other-hls")
    poster = f"hls/{ID}/images.a1/poster.jpg"
    await port.submit(waits="1", poster_key=poster)
    assert (await port.told())[1]["message"] == "The HLS waits for its turn."
    await port.desk.cancel("other-hls")
    await with_progress(port.desk, f"{ID}-hls")
    _, told = await port.told()
    assert (told["state"], told["percent"]) == ("waiting", 42.0)
    assert told["message"] == "The HLS is being made: 42 %."
    assert told["recording"] == f"/media/{ID}/file"
    await port.put(f"hls/{ID}/master.m3u8")
    pretence.goes_on.set()
    await in_state(port.desk, f"{ID}-hls", JobState.COMPLETE)
    _, told = await port.told()
    assert (told["state"], told["message"]) == ("ready", "")
    assert told["master"] == f"/media/{ID}/master.m3u8"
    assert told["poster"] == f"/media/{ID}/images.a1/poster.jpg"


async def test_without_a_worker_that_is_why(port: WatchPort, engine: MemoryEngine) -> None:
    port.views = [view()]
    engine.has_workers = False
    await port.submit("other", waits="1")  # it has the only slot
    await with_progress(port.desk, "other-hls")
    await port.submit(waits="1")
    assert "no worker is running" in (await port.told())[1]["message"]


async def test_a_recording_that_cannot_be_played_says_why(port: WatchPort) -> None:
    port.forgotten = [replace(view(StreamState.DESCRIBED), playable=False)]
    document = json.dumps({"playable_reason": "it is encrypted"}).encode()
    await port.put("streams/a.mp4.metadata.json", document)
    _, told = await port.told()
    assert told["state"] == "never"
    assert told["message"] == "This recording cannot be played: it is encrypted."
    await port.put("streams/a.mp4.metadata.json", b"no document")
    assert (await port.told())[1]["state"] == "never"


async def test_an_error_that_names_a_signed_address_does_not_show_it(
    port: WatchPort, pretence: Pretence
) -> None:
    pretence.error = "http://s3/a?X-Amz-Signature=0123456789abcdef is refused"
    await port.submit(bad="1", copy="1")
    await in_state(port.desk, f"{ID}-hls", JobState.FAILED)
    _, told = await port.told()
    assert told["state"] == "never"
    assert "0123456789abcdef" not in told["message"]


@pytest.mark.parametrize("stream_id", ["20260101T000000Z-00000000", "s1", "%2e%2e", "a%0ab"])
async def test_what_nobody_knows(port: WatchPort, stream_id: str) -> None:
    assert (await port.told(stream_id))[0] == 404


async def test_a_store_that_is_away(port: WatchPort) -> None:
    port.views = [view()]
    port.store.fail("head", ServerUnreachableError("S3 does not answer"))
    assert await port.told() == (503, {"error": "S3 does not answer"})


async def test_what_is_published_is_watched_while_temporal_is_away(tmp_path: Path) -> None:
    settings = Settings(temporal_address="127.0.0.1:1", state_dir=tmp_path)
    port = WatchPort(DeskOnDemand(settings), views=[view()])
    assert (await port.told())[0] == 503
    await port.put(f"hls/{ID}/master.m3u8")
    status, told = await port.told()
    assert (status, told["state"], told["name"]) == (200, "ready", ID)


async def test_the_list_names_what_can_be_watched(port: WatchPort) -> None:
    ids = [f"20260101T000000Z-0000000{number}" for number in range(4)]
    port.views = [view(stream_id=stream_id) for stream_id in ids[:3]]
    port.views.append(view(StreamState.UPLOADING, ids[3]))
    await port.submit(ids[0], copy="1")
    await in_state(port.desk, f"{ids[0]}-hls", JobState.COMPLETE)
    await port.submit(ids[1], waits="1")
    async with port.serving() as session, session.get("/api/watch") as response:
        assert await response.json() == {"ready": [ids[0]]}
    port.views = []
    async with port.serving() as session, session.get("/api/watch") as response:
        assert await response.json() == {"ready": []}
