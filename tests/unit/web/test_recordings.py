"""`/api/recordings`: where what was stored of a file is."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
import pytest

from cefmp4.app.engine import NoJobs
from cefmp4.config.page import PageSettings
from cefmp4.errors import ServerUnreachableError
from cefmp4.model.stream import Stream, StreamState
from cefmp4.model.view import StreamView, view_of_record
from cefmp4.web.api import RecordingApi
from cefmp4.web.listener import listening

S = StreamState


def view(number: int, state: StreamState, relpath: str = "cam/a.mp4") -> StreamView:
    record = Stream(
        id=f"s{number}", relpath=relpath, state=state, part_base=1, key=f"streams/{number}.mp4"
    )
    return replace(view_of_record(record), started_at=float(number))


@dataclass
class Service(NoJobs):
    live: list[StreamView] = field(default_factory=list)
    known: list[StreamView] = field(default_factory=list)
    complete: set[str] = field(default_factory=set)
    is_away: bool = False

    async def history(self, relpath: str, limit: int) -> list[StreamView]:
        return [one for one in self.known if one.relpath == relpath][:limit]

    async def complete_of(self, job_ids: Sequence[str]) -> set[str]:
        if self.is_away:
            raise ServerUnreachableError("Temporal does not answer")
        return self.complete & set(job_ids)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[aiohttp.ClientSession]:
        api = RecordingApi("bucket", lambda: self.live, self.history, self)
        async with (
            listening(PageSettings(), 0, api.routes()) as port,
            aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
        ):
            yield session

    async def ask(self, **query: str) -> tuple[int, Any]:
        async with (
            self.serving() as session,
            session.get("/api/recordings", params=query) as response,
        ):
            return response.status, await response.json()


@pytest.fixture
def service() -> Service:
    return Service()


async def test_where_everything_of_a_path_is(service: Service) -> None:
    service.known = [view(2, S.UPLOADING), view(1, S.HANDED_OVER), view(3, S.STORED, "b.mp4")]
    service.complete = {"s1-hls", "s3-hls"}
    status, told = await service.ask(path="cam/a.mp4")
    assert (status, told["bucket"]) == (200, "bucket")
    growing, stored = told["recordings"]
    keys = ("object_key", "metadata_key", "hls_master_key", "hls_result_key")
    assert [growing[key] for key in keys] == [None] * 4
    assert [stored[key] for key in keys] == [
        "streams/1.mp4",
        "streams/1.mp4.metadata.json",
        "hls/s1/master.m3u8",
        "hls/s1/result.json",
    ]
    assert (stored["id"], stored["state"], stored["relpath"]) == ("s1", "handed_over", "cam/a.mp4")


async def test_keys_are_told_when_something_is_there(service: Service) -> None:
    service.known = [view(1, S.STORED), view(2, S.DESCRIBED), view(3, S.FAILED)]
    _, told = await service.ask(path="cam/a.mp4")
    stored, described, failed = told["recordings"]
    assert (stored["object_key"], stored["metadata_key"]) == ("streams/1.mp4", None)
    assert described["metadata_key"] == "streams/2.mp4.metadata.json"
    assert described["hls_master_key"] is None
    assert failed["object_key"] is None


async def test_without_a_path_the_newest_first(service: Service) -> None:
    service.live = [view(1, S.STORED), view(3, S.UPLOADING), view(2, S.FAILED)]
    _, told = await service.ask(limit="2")
    assert [one["id"] for one in told["recordings"]] == ["s3", "s2"]


async def test_an_unknown_path_is_an_empty_list(service: Service) -> None:
    assert await service.ask(path="none.mp4") == (200, {"bucket": "bucket", "recordings": []})


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "../a", "a/../b", "a//b", "a/", ".", "a\0b", "a" * 4097]
)
async def test_what_is_no_path_below_the_folder(service: Service, path: str) -> None:
    status, told = await service.ask(path=path)
    assert status == 400
    assert "watched folder" in told["error"]


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "x", "", "1e3"])
async def test_what_is_no_limit(service: Service, limit: str) -> None:
    status, told = await service.ask(limit=limit)
    assert status == 400
    assert "limit" in told["error"]


async def test_a_question_that_cannot_be_answered_now(service: Service) -> None:
    service.known, service.is_away = [view(1, S.HANDED_OVER)], True
    status, told = await service.ask(path="cam/a.mp4")
    assert status == 503
    assert "Temporal" in told["error"]
