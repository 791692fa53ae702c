"""`cefmp4 jobs`, as it is called from a shell."""

import argparse
import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from awscrt.checksums import crc64nvme
from pydantic import SecretStr
from tests.support.servers import S3Place

from cefmp4.commands import jobs
from cefmp4.config.settings import Settings
from cefmp4.errors import CefError, RefusedError, UnknownJobError, UnknownStreamError
from cefmp4.jobs.ledger import open_ledger
from cefmp4.model.job import FailReason, JobProgress, Lane
from cefmp4.model.stream import Stream, StreamState
from cefmp4.storage.redis.checkpoints import open_checkpoints
from cefmp4.storage.s3.store import open_s3_store

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


@pytest.fixture
def call(
    redis_url: str,
    s3_server: S3Place,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Call:
    monkeypatch.setenv("COLUMNS", "200")
    settings = Settings(
        redis_url=SecretStr(redis_url),
        s3_endpoint_url=s3_server.endpoint_url,
        s3_access_key_id=s3_server.access_key,
        s3_secret_access_key=SecretStr(s3_server.secret_key),
        s3_region_name=s3_server.region,
        watch_dir=tmp_path,
        s3_bucket_name="bucket",
        worker_max_attempts=7,
    )

    async def run(*words: str) -> str:
        parser = argparse.ArgumentParser()
        jobs.add_arguments(parser)
        assert await jobs.run(parser.parse_args(words), settings) == 0
        said = capsys.readouterr().out  # nobody has set logging up: its lines come here
        logged = ("[info", "[debug")
        return "\n".join(
            line for line in said.splitlines() if not any(mark in line for mark in logged)
        )

    return run


async def test_objects_files_and_streams_can_be_submitted(
    call: Call, tmp_path: Path, redis_url: str, other: str
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
    shown = [json.loads(line) for line in (await call("ls", "--json")).splitlines()]
    assert {job["input"] for job in shown} == {
        f"s3://{other}/k",
        str(file),
        "s3://bucket/streams/c.mp4",
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


async def test_a_job_is_shown_cancelled_and_retried(call: Call, redis_url: str, other: str) -> None:
    job_id = json.loads(await call("submit", f"s3://{other}/k", "--json"))["id"]
    assert "no such jobs" in await call("ls", "--state", "complete")
    assert job_id in await call("ls")
    assert "is cancelled" in await call("cancel", job_id)
    facts = json.loads(await call("show", job_id, "--json"))
    assert (facts["state"], facts["reason"]) == ("failed", "cancelled")
    assert "cancelled" in await call("show", job_id)
    assert json.loads(await call("retry", job_id, "--json")) == {"id": job_id, "done": True}
    async with open_ledger(redis_url, lease_seconds=5) as ledger:
        job = await ledger.begin(Lane.HLS_LOOK, owner="host|1", slot="", offered=job_id)
        assert job is not None
        progress = JobProgress(percent=41.7, speed=2.5, eta_seconds=90)
        await ledger.heartbeat(job_id, job.fence, progress)
    assert "42 %, 2.5x, 2 min left" in await call("ls")
    assert "is told to stop" in await call("cancel", job_id)
    for action in ("show", "cancel", "retry"):
        with pytest.raises(UnknownJobError):
            await call(action, "nobody")
    with pytest.raises(RefusedError):
        await call("retry", job_id)


async def test_no_error_is_shown_with_a_secret_in_it(
    call: Call, redis_url: str, other: str
) -> None:
    job_id = json.loads(await call("submit", f"s3://{other}/k", "--json"))["id"]
    async with open_ledger(redis_url, lease_seconds=5) as ledger:
        job = await ledger.begin(Lane.HLS_LOOK, owner="host|1", slot="", offered=job_id)
        assert job is not None
        error = "http://s3/k?X-Amz-Signature=0123abcd is refused, and http://me:hunter2@s3/ too"
        await ledger.fail(job_id, job.fence, FailReason.ERROR, error)
    for words in (("ls", "--json"), ("show", job_id, "--json"), ("show", job_id)):
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
