"""The HTTP server over a real socket, asked as scrapers, browsers and attackers ask."""

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from pydantic import SecretStr

from cefmp4.app.engine import NoJobs
from cefmp4.config.page import PageSettings
from cefmp4.errors import (
    RefusedError,
    ServerUnreachableError,
    SettingsError,
    UnknownStreamError,
)
from cefmp4.model.job import FailReason, Job, JobInput, JobKind, JobSpec, JobState
from cefmp4.model.stream import Stream, StreamState
from cefmp4.model.view import StreamView, view_of_record
from cefmp4.web import page
from cefmp4.web.api import StreamApi, worker_routes
from cefmp4.web.feed import Feed
from cefmp4.web.job_feed import JobFeed, JobFigures
from cefmp4.web.listener import listening
from cefmp4.web.probes import Health, Probes

TOKEN = "correct horse battery"
HOSTILE = os.fsdecode(b"<script>alert(1)</script>\n\xff.mp4")


def view(number: int, state: StreamState = StreamState.UPLOADING, **fields: Any) -> StreamView:
    record = Stream(id=f"s{number}", relpath=f"{number}.mp4", state=state, part_base=10 << 20)
    return replace(view_of_record(record), updated_at=float(number), **fields)


def job(name: str, state: JobState = JobState.QUEUED, source: str = "", **fields: Any) -> Job:
    spec = JobSpec(subject=name, kind=JobKind.HLS, input=JobInput(key=name), source=source)
    return Job(spec=spec, state=state, **fields)


class Desk(NoJobs):
    """What the engine would say, and how often it was asked."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.is_away = False
        self.asked = 0

    async def latest(
        self, states: Iterable[JobState], limit: int, _kind: JobKind | None = None
    ) -> list[Job]:
        self.asked += 1
        if self.is_away:
            raise ServerUnreachableError("Temporal does not answer")
        return [one for state in states for one in self.jobs if one.state is state][:limit]

    async def counts(self, _kind: JobKind | None = None) -> dict[JobState, int]:
        found = Counter(one.state for one in self.jobs)
        return {state: found[state] for state in JobState}


class Service:
    """What the server is given, and what it did with it."""

    def __init__(self) -> None:
        self.views: list[StreamView] = []
        self.health = Health()
        self.done: list[tuple[str, str]] = []
        self.desk = Desk()

    async def find(self, stream_id: str) -> StreamView | None:
        known = [*self.views, view(99, StreamState.FAILED)]
        return next((one for one in known if one.id == stream_id), None)

    async def retry(self, stream_id: str) -> None:
        if stream_id == "busy":
            raise RefusedError("stream busy is being worked on")
        if stream_id == "none":
            raise UnknownStreamError
        self.done.append(("retry", stream_id))

    async def forget(self, stream_id: str) -> None:
        self.done.append(("forget", stream_id))

    def listening(
        self, host: str = "127.0.0.1", token: str | None = None, port: int = 0
    ) -> AbstractAsyncContextManager[int]:
        feed = Feed(lambda: list(self.views), JobFeed(self.desk, every_s=0.05), interval_s=0.02)
        streams = StreamApi(
            lambda: list(self.views),
            lambda: self.health,
            find=self.find,
            retry=self.retry,
            forget=self.forget,
            jobs=JobFigures(self.desk),
        )
        probes = Probes(lambda: self.health)
        routes = [*page.routes(), *probes.routes(), *streams.routes(), *feed.routes()]
        settings = PageSettings(http_host=host, api_token=SecretStr(token) if token else None)
        return listening(settings, port, routes)

    @asynccontextmanager
    async def serving(
        self, host: str = "127.0.0.1", token: str | None = None
    ) -> AsyncIterator[tuple[aiohttp.ClientSession, int]]:
        async with (
            self.listening(host, token) as port,
            aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
        ):
            yield session, port


@pytest.fixture
def service() -> Service:
    return Service()


async def status_of(session: aiohttp.ClientSession, method: str, path: str, **headers: str) -> int:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with session.request(method, path, headers=named) as response:
        await response.read()
        return response.status


async def test_metrics(service: Service) -> None:
    async with service.serving() as (session, _), session.get("/metrics") as response:
        text = await response.text()
    assert response.status == 200
    assert response.headers["Content-Type"].startswith("text/plain; version=")
    assert "active_streams_gauge" in text
    assert "video_bytes_uploaded_total" in text


@pytest.mark.parametrize(
    ("health", "live", "ready"),
    [
        (Health(), 200, 200),
        (Health(waiting_for=("Redis is out of reach",)), 200, 503),
        (Health(stalled=("watcher",)), 503, 503),
    ],
)
async def test_health(service: Service, health: Health, live: int, ready: int) -> None:
    service.health = health
    async with service.serving() as (session, _):
        assert await status_of(session, "GET", "/livez") == live
        assert await status_of(session, "GET", "/readyz") == ready
        async with session.get("/healthz") as response:
            assert response.status == ready
            assert (await response.json())["reasons"] == health.reasons


async def test_stats(service: Service) -> None:
    service.views = [
        view(1, behind_bytes=5, behind_seconds=2.0, bytes_per_second=7.0),
        view(2, StreamState.DESCRIBED),
    ]
    async with service.serving() as (session, _), session.get("/stats") as response:
        stats = await response.json()
    assert stats["streams"] == {"uploading": 1, "described": 1}
    assert (stats["active_streams"], stats["bytes_behind"], stats["seconds_behind"]) == (1, 5, 2.0)


async def test_stats_tell_of_jobs(service: Service) -> None:
    ended = [(10.0, 20.0), (10.0, 12.0), (10.0, 13.0), (10.0, 110.0)]
    service.desk.jobs = [
        job(f"c{number}", JobState.COMPLETE, submitted_at=began, ended_at=end)
        for number, (began, end) in enumerate(ended)
    ]
    service.desk.jobs += [
        job("f", JobState.FAILED, "webhook", reason=FailReason.ERROR),
        job("g", JobState.COMPLETE, "webhook", submitted_at=10.0, ended_at=13.0),
        job("x", JobState.FAILED, "sqs", reason=FailReason.CANCELLED),
        job("q"),
    ]
    async with service.serving() as (session, _):
        for _ in range(5):
            async with session.get("/stats") as response:
                stats = (await response.json())["jobs"]
    hls = stats["kinds"]["hls"]
    assert (hls["complete"], hls["failed"], hls["running"]) == (5, 2, 0)
    assert (hls["median_seconds"], hls["p95_seconds"], hls["times_of"]) == (3.0, 100.0, 5)
    assert (hls["success_rate"], hls["rate_of"]) == (5 / 6, 6)
    rates = {name: (one["success_rate"], one["rate_of"]) for name, one in stats["sources"].items()}
    assert rates == {"webhook": (0.5, 2), "sqs": (None, 0)}
    assert service.desk.asked == 2, "once of what is complete, once of what failed"


async def test_a_worker_tells_of_jobs_to_whom_the_page_would() -> None:
    desk = Desk()
    desk.jobs = [job("a", JobState.COMPLETE, submitted_at=1.0, ended_at=3.0)]
    routes = worker_routes(desk, Health)
    settings = PageSettings(http_host="0.0.0.0", api_token=SecretStr(TOKEN))
    may = {"Authorization": f"Bearer {TOKEN}"}
    async with (
        listening(settings, 0, routes) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
    ):
        for path in ("/stats", "/jobs/peek"):
            assert await status_of(session, "GET", path) == 401
        async with session.get("/stats", headers=may) as response:
            stats = await response.json()
        async with session.get("/jobs/peek", headers=may) as response:
            peek = await response.json()
    assert (stats["ready"], stats["jobs"]["kinds"]["hls"]["median_seconds"]) == (True, 2.0)
    assert peek["states"]["complete"] == 1


async def test_stats_of_streams_need_no_engine(service: Service) -> None:
    service.desk.is_away = True
    service.views = [view(1, StreamState.STORED, size=7)]
    async with service.serving() as (session, _), session.get("/stats") as response:
        stats = await response.json()
    assert stats["bytes_stored"] == 7
    assert stats["jobs"] == {"error": "Temporal does not answer"}


async def test_streams_are_listed_by_state_and_limit(service: Service) -> None:
    service.views = [view(n) for n in range(5)]
    service.views += [view(n, StreamState.FAILED, relpath=HOSTILE) for n in range(10, 12)]
    async with service.serving() as (session, _):
        async with session.get("/api/streams?state=failed") as response:
            failed = await response.json()
        async with session.get("/api/streams?limit=3") as response:
            few = await response.json()
    assert [found["id"] for found in failed["streams"]] == ["s11", "s10"]
    assert failed["streams"][0]["relpath"] == HOSTILE
    assert [found["id"] for found in few["streams"]] == ["s4", "s3", "s2"]
    assert few["total"] == 7


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=x", "limit=-1", "limit=10001", "limit=" + "9" * 5000, "state=odd"]
)
async def test_bad_questions_are_answered_with_400(service: Service, query: str) -> None:
    async with service.serving() as (session, _):
        assert await status_of(session, "GET", f"/api/streams?{query}") == 400


async def test_one_stream(service: Service) -> None:
    service.views = [view(1)]
    async with service.serving() as (session, _):
        async with session.get("/api/streams/s1") as response:
            assert await response.json() == view(1).to_fields()
        assert await status_of(session, "GET", "/api/streams/s99") == 200
        assert await status_of(session, "GET", "/api/streams/s2") == 404
        assert await status_of(session, "GET", "/nothing") == 404
        assert await status_of(session, "GET", "/api/streams/s1/retry") == 405


async def test_changes_on_loopback(service: Service) -> None:
    async with service.serving() as (session, port):
        assert await status_of(session, "POST", "/api/streams/s1/retry") == 200
        own = f"http://127.0.0.1:{port}"
        assert await status_of(session, "POST", "/api/streams/s1/forget", Origin=own) == 200
        assert await status_of(session, "POST", "/api/streams/busy/retry") == 409
        assert await status_of(session, "POST", "/api/streams/none/retry") == 404
    assert service.done == [("retry", "s1"), ("forget", "s1")]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Host": "evil.example"},
        {"Host": "evil.example", "Origin": "http://evil.example"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "[::1"},
    ],
)
async def test_other_sites_change_nothing(service: Service, headers: dict[str, str]) -> None:
    async with service.serving() as (session, _):
        status = await status_of(session, "POST", "/api/streams/s1/forget", **headers)
    assert status in {400, 403}
    assert service.done == []


async def test_a_rebound_name_reads_nothing(service: Service) -> None:
    service.views = [view(1)]
    async with service.serving() as (session, _):
        for path in ("/api/streams", "/api/streams/s1", "/stats", "/events", "/"):
            assert await status_of(session, "GET", path, Host="evil.example:8000") == 403
        for path in ("/metrics", "/livez", "/readyz"):
            assert await status_of(session, "GET", path, Host="cefmp4:8000") == 200
        for host in ("localhost:8000", "127.0.0.1", "[::1]:8000", "127.9.9.9", "LOCALHOST"):
            assert await status_of(session, "GET", "/stats", Host=host) == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
async def test_where_a_token_is_set_changes_need_it(service: Service, host: str) -> None:
    path = "/api/streams/s1/forget"
    async with service.serving(host, TOKEN) as (session, _):
        read = 200 if host == "127.0.0.1" else 401
        assert await status_of(session, "GET", "/api/streams") == read
        assert await status_of(session, "POST", path) == 401
        for wrong in ("Bearer wrong", "Bearer", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer é"):
            assert await status_of(session, "POST", path, Authorization=wrong) == 401
        assert service.done == []
        assert await status_of(session, "POST", path, Authorization=f"Bearer {TOKEN}") == 200
    assert service.done == [("forget", "s1")]


async def test_bound_wide_without_a_token_nothing_can_be_done(service: Service) -> None:
    async with service.serving("0.0.0.0") as (session, _):
        for path in ("/stats", "/", "/events", "/api/streams"):
            assert await status_of(session, "GET", path) == 403
        assert await status_of(session, "GET", "/metrics") == 200
        assert await status_of(session, "POST", "/api/streams/s1/forget") == 403
        headers = {"Authorization": "Bearer "}
        assert await status_of(session, "POST", "/api/streams/s1/forget", **headers) == 403
    assert service.done == []


async def next_event(response: aiohttp.ClientResponse, name: str = "streams") -> dict[str, Any]:
    async with asyncio.timeout(10):
        async for line in response.content:
            if line == f"event: {name}\n".encode():
                data = await response.content.readline()
                found: dict[str, Any] = json.loads(data.removeprefix(b"data: "))
                return found
    raise AssertionError("the stream of events ended")


async def test_events_tell_what_changed(service: Service) -> None:
    async with service.serving() as (session, _), session.get("/events") as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        assert await next_event(response) == {"changed": [], "gone": []}
        service.views = [view(1), view(2)]
        assert [v["id"] for v in (await next_event(response))["changed"]] == ["s2", "s1"]
        service.views = [view(1, relpath=HOSTILE), view(2)]
        event = await next_event(response)
        assert [v["relpath"] for v in event["changed"]] == [HOSTILE]
        service.views = [view(2)]
        assert await next_event(response) == {"changed": [], "gone": ["s1"]}


async def test_events_tell_of_jobs(service: Service) -> None:
    service.desk.jobs = [job("a"), job("b", JobState.IN_PROGRESS)]
    async with service.serving() as (session, _), session.get("/events") as response:
        first = await next_event(response, "jobs")
        assert [one["id"] for one in first["changed"]] == ["b-hls", "a-hls"]
        assert (first["order"], first["total"]) == (["b-hls", "a-hls"], 2)
        service.desk.jobs = [job("a", JobState.COMPLETE), job("b", JobState.IN_PROGRESS)]
        event = await next_event(response, "jobs")
        assert [one["state"] for one in event["changed"]] == ["complete"]
        service.desk.is_away = True
        event = await next_event(response, "jobs")
        assert (event["changed"], event["error"]) == ([], "Temporal does not answer")
        assert event["order"] == ["b-hls", "a-hls"], "what was seen last stays"


async def test_the_engine_is_asked_once_for_all_and_only_while_somebody_listens(
    service: Service,
) -> None:
    service.desk.jobs = [job("a")]
    feed = JobFeed(service.desk, every_s=60)
    assert feed.latest() is None
    await asyncio.gather(*(_seen(feed) for _ in range(3)))
    assert service.desk.asked == 1
    await feed.rest()
    assert service.desk.asked == 1
    assert feed.latest() is None


async def _seen(feed: JobFeed) -> None:
    while feed.latest() is None:  # noqa: ASYNC110  # it tells nobody
        await asyncio.sleep(0.01)


async def test_listeners_are_bounded_and_leave_room(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cefmp4.web.feed.MAX_LISTENERS", 2)
    async with service.serving() as (session, _):
        async with session.get("/events") as first, session.get("/events"):
            await next_event(first)
            assert await status_of(session, "GET", "/events") == 503
        async with asyncio.timeout(10):
            while True:
                async with session.get("/events") as again:
                    if again.status == 200:
                        break
                service.views = [view(len(service.views))]
                await asyncio.sleep(0.02)


async def test_closing_does_not_wait_for_listeners(service: Service) -> None:
    async with aiohttp.ClientSession() as session:
        async with service.listening() as port:
            response = await session.get(f"http://127.0.0.1:{port}/events")
            await next_event(response)
            closing_at = time.monotonic()
        assert time.monotonic() - closing_at < 1
        response.close()


async def test_a_busy_port_is_named(service: Service) -> None:
    async with service.listening() as taken:
        with pytest.raises(SettingsError, match=f"PROM_PORT={taken}: "):
            async with service.listening(port=taken):
                pass


async def test_an_address_that_is_not_ours_is_named(service: Service) -> None:
    with pytest.raises(SettingsError, match=r"HTTP_HOST=192\.0\.2\.1: "):
        async with service.serving("192.0.2.1"):
            pass
