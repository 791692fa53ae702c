"""`cefmp4 jobs`, as it is called from a shell."""

import argparse
import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from awscrt.checksums import crc64nvme
from pydantic import SecretStr
from tests.support.pretence import Pretence, in_state, pretending, until, with_progress
from tests.support.servers import S3Place
from tests.support.temporal_server import JobPlace

from cefmp4.commands import jobs
from cefmp4.config.settings import Settings
from cefmp4.errors import (
    CefError,
    RefusedError,
    ServerUnreachableError,
    SettingsError,
    UnknownJobError,
    UnknownStreamError,
)
from cefmp4.metadata.document import build_document
from cefmp4.model.job import JobInput, JobKind, JobSpec, JobState
from cefmp4.model.media import MediaInfo
from cefmp4.model.names import metadata_key
from cefmp4.model.stream import FileStamp, Stream, StreamState
from cefmp4.storage.redis.checkpoints import open_checkpoints
from cefmp4.storage.s3.store import open_s3_store
from cefmp4.temporal.desk import Desk
from cefmp4.temporal.worker import working

pytestmark = pytest.mark.integration

Call = Callable[..., Awaitable[str]]


async def store(s3: S3Place, bucket: str, key: str, data: bytes) -> None:
    async with open_s3_store(s3.config(bucket)) as opened:
        await opened.put_object(key, data, content_type="", metadata={}, crc64=crc64nvme(data))


@pytest_asyncio.fixture
async def other(s3_server: S3Place) -> str:
    """A bucket that is not the one of the settings, with an object `k`."""
    bucket = await s3_server.new_bucket()
    await store(s3_server, bucket, "k", b"one")
    return bucket


@pytest_asyncio.fixture
async def settings(
    redis_url: str, s3_server: S3Place, tmp_path: Path, job_place: JobPlace
) -> Settings:
    return Settings(
        redis_url=SecretStr(redis_url),
        s3_endpoint_url=s3_server.endpoint_url,
        s3_access_key_id=s3_server.access_key,
        s3_secret_access_key=SecretStr(s3_server.secret_key),
        s3_region_name=s3_server.region,
        watch_dir=tmp_path,
        s3_bucket_name=await s3_server.new_bucket(),
        worker_max_attempts=7,
        **job_place.settings,
    )


@pytest_asyncio.fixture
async def desk(job_place: JobPlace) -> Desk:
    return Desk(await job_place.connect())


@asynccontextmanager
async def at_work(place: JobPlace, folder: Path, pretence: Pretence) -> AsyncIterator[None]:
    client = await place.connect()
    with pretending(folder, pretence) as host:
        async with working(client, host, drain_s=0):
            yield


def wanted(name: str, **params: str) -> JobSpec:
    return JobSpec(subject=name, kind=JobKind.HLS, input=JobInput(key=name), params=params)


@pytest.fixture
def call(
    settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Call:
    monkeypatch.setenv("COLUMNS", "200")

    async def run(*words: str, code: int = 0) -> str:
        parser = argparse.ArgumentParser()
        jobs.add_arguments(parser)
        assert await jobs.run(parser.parse_args(words), settings) == code
        said = capsys.readouterr().out  # nobody has set logging up: its lines come here
        logged = ("[info", "[debug", "[warning")
        return "\n".join(
            line for line in said.splitlines() if not any(mark in line for mark in logged)
        )

    return run


async def listed(call: Call, *words: str, count: int) -> list[dict[str, Any]]:
    """The engine lists what it has a moment later."""
    async with asyncio.timeout(10):
        while True:
            lines = (await call("ls", "--json", *words)).splitlines()
            if len(lines) >= count:
                return [json.loads(line) for line in lines]
            await asyncio.sleep(0.05)


async def over(desk: Desk, job_id: str) -> None:
    """What a failed job left is removed."""

    async def is_over() -> bool:
        return (await desk.get(job_id)).ended_at > 0

    await until(is_over)


async def test_objects_files_and_streams_can_be_submitted(
    call: Call, tmp_path: Path, redis_url: str, other: str, settings: Settings
) -> None:
    file = tmp_path / "a b.mp4"
    await asyncio.to_thread(file.write_bytes, b"x")
    stream = Stream(
        id="20260101T000000Z-0badcafe",
        relpath="c.mp4",
        key="streams/c.mp4",
        part_base=1,
        state=StreamState.DESCRIBED,
    )
    async with open_checkpoints(redis_url, lease_seconds=5) as checkpoints:
        assert await checkpoints.claim(stream, "me")
    first = json.loads(await call("submit", f"s3://{other}/k", "--json"))
    again = json.loads(await call("submit", f"s3://{other}/k", "--json"))
    assert (first["is_new"], again["is_new"]) == (True, False)
    assert first["id"] == again["id"]
    assert "is queued" in await call("submit", str(file), "--priority", "5")
    assert "is queued" in await call("submit", stream.id)
    assert "is known: queued" in await call("submit", stream.id)
    shown = await listed(call, count=3)
    assert {job["input"] for job in shown} == {
        f"s3://{other}/k",
        str(file),
        f"s3://{settings.s3_bucket_name}/streams/c.mp4",
    }
    assert {job["id"] for job in shown} >= {f"{stream.id}-hls"}
    with pytest.raises(UnknownStreamError):
        await call("submit", "nothing")
    with pytest.raises(RefusedError):
        await call("submit", "s3://nothing")
    with pytest.raises(RefusedError, match="not in WATCH_DIR"):
        await call("submit", __file__)


async def test_an_object_is_looked_at_when_it_is_submitted(
    call: Call, s3_server: S3Place, other: str
) -> None:
    """Another object under the same key is another job."""
    first = json.loads(await call("submit", f"s3://{other}/k", "--json"))
    await store(s3_server, other, "k", b"two")
    second = json.loads(await call("submit", f"s3://{other}/k", "--json"))
    assert second["is_new"]
    assert first["id"] != second["id"]
    with pytest.raises(RefusedError, match="there is no object 'nothing' in the bucket"):
        await call("submit", f"s3://{other}/nothing")
    with pytest.raises(CefError):
        await call("submit", "s3://Bad_Bucket!/k")


async def test_a_kind_that_no_worker_does_is_refused(
    call: Call, capsys: pytest.CaptureFixture[str], other: str
) -> None:
    for kind in ("analysis", "odd"):
        with pytest.raises(SystemExit) as ended:
            await call("submit", f"s3://{other}/k", "--kind", kind)
        assert ended.value.code == 2
        assert f"no worker does '{kind}' jobs; allowed are hls" in capsys.readouterr().err
    assert "no jobs yet" in await call("ls")
    assert "is queued" in await call("submit", f"s3://{other}/k", "--kind", "hls")


async def test_the_file_of_a_stream_means_the_stream(
    call: Call, tmp_path: Path, redis_url: str, desk: Desk
) -> None:
    """Also where the file is gone; another file at its place is another recording."""
    (tmp_path / "a").mkdir()
    file = tmp_path / "a" / "c.mp4"
    await asyncio.to_thread(file.write_bytes, b"x")
    found = file.stat()
    stream = Stream(
        id="20260101T000000Z-0badcafe",
        relpath="a/c.mp4",
        key="streams/c.mp4",
        part_base=1,
        state=StreamState.DESCRIBED,
        stamp=FileStamp(found.st_ino, 1, found.st_mtime_ns, found.st_ctime_ns),
    )
    async with open_checkpoints(redis_url, lease_seconds=5) as checkpoints:
        assert await checkpoints.claim(stream, "me")
    job_id = f"{stream.id}-hls"
    assert job_id in await call("submit", str(file))
    assert (await desk.get(job_id)).spec.folder == "a"
    file.rename(tmp_path / "elsewhere")
    for name in (str(file), "a/c.mp4"):
        assert f"{job_id} is known" in await call("submit", name)
    await asyncio.to_thread(file.write_bytes, b"another")
    other = json.loads(await call("submit", str(file), "--json"))
    assert other["is_new"]
    assert (await desk.get(other["id"])).spec.folder == "a"


async def test_a_job_is_shown_cancelled_and_retried(
    call: Call, other: str, desk: Desk, job_place: JobPlace, tmp_path: Path
) -> None:
    job_id = json.loads(await call("submit", f"s3://{other}/k", "--json"))["id"]
    await listed(call, count=1)
    assert "no such jobs" in await call("ls", "--state", "complete")
    assert job_id in await call("ls")
    assert "is cancelled" in await call("cancel", job_id)
    async with at_work(job_place, tmp_path / "work", Pretence()):
        await in_state(desk, job_id, JobState.FAILED)
        await over(desk, job_id)
    facts = json.loads(await call("show", job_id, "--json"))
    assert (facts["state"], facts["reason"]) == ("failed", "cancelled")
    assert "cancelled" in await call("show", job_id)
    assert json.loads(await call("retry", job_id, "--json")) == {"id": job_id, "done": True}
    with pytest.raises(RefusedError):
        await call("retry", job_id)
    for action in ("show", "cancel", "retry"):
        with pytest.raises(UnknownJobError):
            await call(action, "nobody")


async def test_a_running_job_is_shown_and_told_to_stop(
    call: Call, desk: Desk, job_place: JobPlace, tmp_path: Path
) -> None:
    async with at_work(job_place, tmp_path / "work", Pretence()):
        await desk.submit(wanted("a", waits="1"))
        await with_progress(desk, "a-hls")
        (job,) = await listed(call, "--state", "in_progress", count=1)
        assert (job["step"], job["slot"], job["owner"]) == ("encode", "cpu", "one")
        assert "42 %, 2.5x, 2 min left" in await call("ls")
        assert "is told to stop" in await call("cancel", "a-hls")
        await in_state(desk, "a-hls", JobState.FAILED)


async def test_all_failed_jobs_can_be_tried_again(
    call: Call, desk: Desk, job_place: JobPlace, tmp_path: Path
) -> None:
    async with at_work(job_place, tmp_path / "work", Pretence()):
        for name in ("a", "b"):
            await desk.submit(wanted(name, bad="no video in it", copy="1"))
            await over(desk, f"{name}-hls")
        await desk.submit(wanted("c", waits="1"))
        await with_progress(desk, "c-hls")
        await desk.cancel("c-hls")
        await in_state(desk, "c-hls", JobState.FAILED)
        await listed(call, "--state", "failed", count=3)
    said = await call("retry", "--failed")
    assert "job a-hls is queued again" in said
    assert "2 queued again, 0 not; 1 that were cancelled stay" in said
    assert (await desk.get("b-hls")).is_queued
    assert (await desk.get("c-hls")).has_failed


async def test_no_error_is_shown_with_a_secret_in_it(
    call: Call, desk: Desk, job_place: JobPlace, tmp_path: Path
) -> None:
    error = "http://s3/k?X-Amz-Signature=0123abcd is refused, and http://me:hunter2@s3/ too"
    async with at_work(job_place, tmp_path / "work", Pretence(error=error)):
        await desk.submit(wanted("a", bad="1"))
        await in_state(desk, "a-hls", JobState.FAILED)
        await listed(call, count=1)
    for words in (("ls", "--json"), ("show", "a-hls", "--json"), ("show", "a-hls")):
        said = await call(*words)
        assert "X-Amz-Signature=***" in said
        assert "0123abcd" not in said
        assert "hunter2" not in said


async def test_bad_numbers_and_words_are_named(
    call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, allowed in (
        (("ls", "--limit", "0"), "1 to"),
        (("ls", "--limit", "x"), "1 to"),
        (("ls", "--state", "bogus"), "in_progress"),
        (("submit", "s3://b/k", "--priority", "101"), "-100 to 100"),
    ):
        with pytest.raises(SystemExit) as ended:
            await call(*words)
        assert ended.value.code == 2
        assert allowed in capsys.readouterr().err


async def test_a_submitted_job_has_the_attempts_that_are_set(call: Call, other: str) -> None:
    job_id = json.loads(await call("submit", f"s3://{other}/k", "--json"))["id"]
    assert json.loads(await call("show", job_id, "--json"))["max_attempts"] == 7


def document(stream: Stream, *, is_playable: bool = True) -> bytes:
    media = MediaInfo(playable=is_playable, reason="")
    return build_document(
        replace(stream, playable=is_playable), [], media, bucket="b", watch_dir="/", processed_at=1
    )


async def stored(
    s3: S3Place, settings: Settings, number: int, *, is_playable: bool = True, is_known: bool = True
) -> Stream:
    """A recording in the bucket, beside its document; `is_known`: to Redis, too."""
    bucket = settings.s3_bucket_name
    stream = Stream(
        id=f"20260101T000000Z-0000000{number}",
        relpath=f"f/{number}.mp4",
        key=f"streams/{number}.mp4",
        part_base=5 << 20,
        state=StreamState.DESCRIBED,
        size=3,
        crc64=crc64nvme(b"one"),
        playable=is_playable,
    )
    async with open_s3_store(s3.config(bucket)) as opened:
        etag = await opened.put_object(
            stream.key, b"one", content_type="", metadata={}, crc64=stream.crc64
        )
        stream = replace(stream, etag=etag)
        data = document(stream, is_playable=is_playable)
        await opened.put_object(
            metadata_key(stream.key), data, content_type="", metadata={}, crc64=crc64nvme(data)
        )
    if is_known:
        async with open_checkpoints(str(settings.redis_address), lease_seconds=5) as checkpoints:
            assert await checkpoints.claim(stream, "me")
    return stream


async def test_recordings_without_a_result_are_found_and_queued_once(
    call: Call,
    settings: Settings,
    s3_server: S3Place,
    desk: Desk,
    job_place: JobPlace,
    tmp_path: Path,
) -> None:
    known = await stored(s3_server, settings, 1)
    forgotten = await stored(s3_server, settings, 2, is_known=False)
    await stored(s3_server, settings, 3, is_playable=False)
    made = await stored(s3_server, settings, 4)
    bucket = settings.s3_bucket_name
    await store(s3_server, bucket, "streams/of-somebody-else.mp4", b"x")
    for name in ("master.m3u8", "result.json"):
        await store(s3_server, bucket, f"hls/{made.id}/{name}", b"x")
    summary = "4 recordings: 1 made, 2 submitted, 0 under way, 0 failed, 1 not playable"
    dry = await call("backfill", "--dry-run")
    assert f"{summary}, nothing was queued" in dry
    assert await desk.find(f"{known.id}-hls") is None
    said = await call("backfill", "--json")
    found = {line["key"]: line["found"] for line in map(json.loads, said.splitlines())}
    assert found == {
        known.key: "submitted",
        forgotten.key: "submitted",
        "streams/3.mp4": "not_playable",
        made.key: "made",
    }
    assert "0 submitted, 2 under way" in await call("backfill")
    spec = (await desk.get(f"{forgotten.id}-hls")).spec
    assert (spec.priority, spec.folder, spec.input.etag) == (-100, "f", forgotten.etag)
    async with at_work(job_place, tmp_path / "work", Pretence()):
        for stream in (known, forgotten):
            await in_state(desk, f"{stream.id}-hls", JobState.COMPLETE)
    assert "2 submitted" in await call("backfill"), "what was made is not there"
    assert "0 recordings" in await call("backfill", "--prefix", "other/")
    assert "0 made, 1 submitted, 2 under way" in await call("backfill", "--with-made")


async def test_what_failed_is_not_queued_again_by_a_backfill(
    call: Call, settings: Settings, s3_server: S3Place, desk: Desk
) -> None:
    stream = await stored(s3_server, settings, 1)
    await call("backfill")
    await desk.cancel(f"{stream.id}-hls")
    assert "0 submitted" in await call("backfill")


@pytest.mark.parametrize("words", [("ls",), ("show", "a-hls"), ("retry", "--failed")])
async def test_without_a_temporal_one_line_says_so(settings: Settings, words: list[str]) -> None:
    parser = argparse.ArgumentParser()
    jobs.add_arguments(parser)
    nowhere = settings.model_copy(update={"temporal_address": None})
    with pytest.raises(SettingsError, match="TEMPORAL_ADDRESS is not set"):
        await jobs.run(parser.parse_args(words), nowhere)
    away = settings.model_copy(update={"temporal_address": "127.0.0.1:1"})
    with pytest.raises(ServerUnreachableError, match="check TEMPORAL_ADDRESS"):
        await jobs.run(parser.parse_args(words), away)


async def test_where_no_jobs_are_made_there_are_none(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    jobs.add_arguments(parser)
    none = settings.model_copy(update={"temporal_address": None, "handover_jobs": ()})
    assert await jobs.run(parser.parse_args(["ls"]), none) == 0
    assert "no jobs yet" in capsys.readouterr().out
    file = settings.watch_dir / "a.mp4"
    file.write_bytes(b"x")
    with pytest.raises(SettingsError, match="TEMPORAL_ADDRESS is not set"):
        await jobs.run(parser.parse_args(["submit", str(file)]), none)
