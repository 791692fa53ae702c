"""`cefmp4 status` and `cefmp4 streams` as an operator runs them, against a real Redis."""

import asyncio
import json
import os
import sys
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

import pytest

from cefmp4.model.part import Part
from cefmp4.model.stream import FileStamp, Stream, StreamState
from cefmp4.model.view import view_of_record
from cefmp4.ports.checkpoints import Lease
from cefmp4.storage.redis import checkpoints
from cefmp4.storage.redis.checkpoints import RedisCheckpointStore, open_checkpoints
from cefmp4.storage.redis.owner import owner_id

pytestmark = pytest.mark.integration
HOSTILE = os.fsdecode(b"[red]x[/red]\n\x1b[31m\xff\xe2\x80\xae.mp4")


@dataclass
class Answer:
    code: int
    out: str
    err: str

    @property
    def objects(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


async def cefmp4(redis_url: str, *words: str) -> Answer:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "cefmp4",
        *words,
        env={**os.environ, "REDIS_URL": redis_url, "COLUMNS": "150"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return Answer(process.returncode or 0, out.decode(), err.decode())


def stream(number: int, state: StreamState, path: str = "") -> Stream:
    return Stream(
        id=f"s{number}",
        relpath=path or f"camera/{number}.mp4",
        state=state,
        reason="it was truncated" if state is StreamState.FAILED else "",
        part_base=10 << 20,
        sent_high=3 << 20,
        size=4 << 20,
        stamp=FileStamp(1, 2, 3, 4),
        started_at=1_700_000_000.0,
        updated_at=1_700_000_000.0 + number,
    )


async def fill(redis_url: str, *streams: Stream, release: bool = True) -> list[Lease]:
    leases = []
    async with open_checkpoints(redis_url, lease_seconds=60) as store:
        for new in streams:
            lease = await store.claim(new, owner_id("recorder"))
            assert lease
            part = Part(number=1, size=3 << 20, crc64=2**63, etag='"e"', uploaded_at=1.0)
            await store.save(new, lease, parts=[part])
            if release:
                await store.release(lease)
            leases.append(lease)
    return leases


async def load(redis_url: str, stream_id: str) -> Stream | None:
    async with open_checkpoints(redis_url, lease_seconds=60) as store:
        return await store.load_stream(stream_id)


async def test_nothing_yet(redis_url: str) -> None:
    assert "no streams yet" in (await cefmp4(redis_url, "status")).out
    assert "no streams yet" in (await cefmp4(redis_url, "streams", "ls")).out
    status = await cefmp4(redis_url, "status", "--json")
    assert status.objects[0]["streams"] == []


async def test_status_shows_records_and_what_instances_say(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "LIVE_VIEWS_MS", 60_000)
    uploading = stream(1, StreamState.UPLOADING, HOSTILE)
    await fill(redis_url, uploading, stream(2, StreamState.FAILED))
    live = replace(view_of_record(uploading), behind_seconds=2.5, bytes_per_second=2.0 * 2**20)
    async with open_checkpoints(redis_url, lease_seconds=60) as store:
        await store.publish_views([live])
        table = await cefmp4(redis_url, "status")
        as_json = await cefmp4(redis_url, "status", "--json", "--limit", "1")
    assert table.code == 0
    assert "1.0 MiB, 2.5 s" in table.out
    assert "2.0 MiB/s" in table.out
    assert "it was truncated" in table.out
    assert "1 uploading, 1 failed" in table.out
    assert "\x1b" not in table.out
    assert "[red]x[/red]\\n\\x1b[31m\\udcff\\u202e.mp4" in table.out
    found = as_json.objects[0]
    assert [view["id"] for view in found["streams"]] == ["s1"]
    assert found["streams"][0]["relpath"] == HOSTILE
    assert found["totals"]["streams"] == {"uploading": 1, "failed": 1}


async def test_watch_goes_on(redis_url: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cefmp4", "status", "--watch", "--json"),
        env={**os.environ, "REDIS_URL": redis_url},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout
    async with asyncio.timeout(30):
        assert json.loads(await process.stdout.readline())["streams"] == []
        await fill(redis_url, stream(1, StreamState.UPLOADING))
        while not json.loads(await process.stdout.readline())["streams"]:
            pass
    process.kill()
    await process.communicate()


async def test_ls(redis_url: str) -> None:
    await fill(
        redis_url,
        stream(1, StreamState.DESCRIBED, HOSTILE),
        stream(2, StreamState.FAILED),
        stream(3, StreamState.UPLOADING),
    )
    table = await cefmp4(redis_url, "streams", "ls")
    assert [line.split()[0] for line in table.out.splitlines()[1:]] == ["s3", "s2", "s1"]
    assert "\x1b" not in table.out
    failed = await cefmp4(redis_url, "streams", "ls", "--state", "failed", "--json")
    assert [view["id"] for view in failed.objects] == ["s2"]
    assert len((await cefmp4(redis_url, "streams", "ls", "--limit", "2", "--json")).objects) == 2
    assert (await cefmp4(redis_url, "streams", "ls", "--state", "odd")).code == 2


async def test_show(redis_url: str) -> None:
    new = stream(1, StreamState.UPLOADING, HOSTILE)
    await fill(redis_url, new, release=False)
    lines = await cefmp4(redis_url, "streams", "show", "s1")
    assert lines.code == 0
    assert "\x1b" not in lines.out
    assert "8000000000000000" in lines.out
    found = (await cefmp4(redis_url, "streams", "show", "s1", "--json")).objects[0]
    assert found["relpath"] == HOSTILE
    assert found["parts"][0]["size"] == 3 << 20
    assert found["stamp"]["mtime_ns"] == 3
    assert found["held_by"] == "recorder"


async def test_retry_forgets_a_failed_stream_and_tells_everybody(redis_url: str) -> None:
    await fill(redis_url, stream(1, StreamState.FAILED), stream(2, StreamState.DESCRIBED))
    async with (
        open_checkpoints(redis_url, lease_seconds=60) as store,
        aclosing(store.requests()) as requests,
    ):
        hearing = asyncio.create_task(anext(requests))
        await _until_heard(store, hearing)
        hearing = asyncio.create_task(anext(requests))
        answer = await cefmp4(redis_url, "streams", "retry", "s1")
        assert (answer.code, answer.err) == (0, "")
        async with asyncio.timeout(10):
            while (heard := await hearing) == ("test", ""):
                hearing = asyncio.create_task(anext(requests))
        assert heard == ("retry", "s1")
    assert await load(redis_url, "s1") is None
    refused = await cefmp4(redis_url, "streams", "retry", "s2")
    assert refused.code == 1
    assert "only a failed one" in refused.err
    assert await load(redis_url, "s2")


async def _until_heard(store: RedisCheckpointStore, hearing: "asyncio.Task[Any]") -> None:
    async with asyncio.timeout(10):
        while not hearing.done():
            await store.request("test", "")
            await asyncio.wait([hearing], timeout=0.05)


async def test_forget(redis_url: str) -> None:
    await fill(redis_url, stream(1, StreamState.DESCRIBED))
    answer = await cefmp4(redis_url, "streams", "forget", "s1", "--json")
    assert answer.objects == [{"id": "s1", "done": True}]
    assert await load(redis_url, "s1") is None


@pytest.mark.parametrize("action", ["retry", "forget"])
async def test_a_stream_at_work_is_refused(redis_url: str, action: str) -> None:
    await fill(redis_url, stream(1, StreamState.FAILED), release=False)
    answer = await cefmp4(redis_url, "streams", action, "s1")
    assert answer.code == 1
    assert answer.out == ""
    assert len(answer.err.splitlines()) == 1
    assert "being worked on" in answer.err
    assert await load(redis_url, "s1")


@pytest.mark.parametrize("action", ["show", "retry", "forget"])
async def test_an_unknown_stream(redis_url: str, action: str) -> None:
    answer = await cefmp4(redis_url, "streams", action, "\x1b[31mno\nne")
    assert answer.code == 1
    assert len(answer.err.splitlines()) == 1
    assert "\x1b" not in answer.err
    assert "there is no stream" in answer.err


@pytest.mark.parametrize("words", [["status"], ["streams", "ls"]])
async def test_no_redis(words: list[str]) -> None:
    answer = await cefmp4("redis://:hidden@127.0.0.1:1/0", *words)
    assert answer.code == 3
    assert "out of reach" in answer.err
    assert "hidden" not in answer.err


async def test_the_path_of_a_file_names_its_newest_stream(redis_url: str) -> None:
    """Of one that is gone, too, and of any name."""
    await fill(redis_url, stream(1, StreamState.FAILED, HOSTILE), stream(2, StreamState.DESCRIBED))
    shown = await cefmp4(redis_url, "streams", "show", "camera/2.mp4", "--json")
    assert shown.objects[0]["id"] == "s2"
    refused = await cefmp4(redis_url, "streams", "retry", "local_watch_dir/camera/2.mp4")
    assert (refused.code, "only a failed one" in refused.err) == (1, True)
    retried = await cefmp4(redis_url, "streams", "retry", HOSTILE, "--json")
    assert retried.objects == [{"id": "s1", "done": True}]
    forgotten = await cefmp4(redis_url, "streams", "forget", "camera/2.mp4", "--json")
    assert forgotten.objects == [{"id": "s2", "done": True}]
    assert await load(redis_url, "s2") is None
