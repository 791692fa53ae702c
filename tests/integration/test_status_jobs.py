"""`cefmp4 status` shows jobs beside streams."""

import argparse
import asyncio
import json

import pytest
from pydantic import SecretStr

from cefmp4.commands import display, status
from cefmp4.config.settings import Settings
from cefmp4.jobs.ledger import open_ledger
from cefmp4.model.job import FailReason, JobInput, JobKind, JobProgress, JobSpec, Lane

pytestmark = pytest.mark.integration
HOSTILE = "[red]x[/red]\n\x1b[31m.mp4"
SIGNED = "https://h/o?X-Amz-Signature=0123abcd failed"


async def fill(redis_url: str) -> None:
    """One job runs, one waits, one failed."""
    async with open_ledger(redis_url, lease_seconds=60) as ledger:
        for number, key in enumerate(("a.mp4", HOSTILE, "b.mp4")):
            source = JobInput(bucket="b", key=key)
            await ledger.submit(JobSpec(subject=f"s{number}", kind=JobKind.HLS, input=source))
        for job_id in ("s0-hls", "s1-hls"):
            job = await ledger.begin(Lane.HLS_LOOK, owner="host|1", slot="", offered=job_id)
            assert job is not None
            assert job.id == job_id
            if job_id == "s0-hls":
                progress = JobProgress(percent=41.7, speed=2.5, eta_seconds=90)
                await ledger.heartbeat(job_id, job.fence, progress)
            else:
                await ledger.fail(job_id, job.fence, FailReason.ERROR, SIGNED)


async def said(
    redis_url: str, capsys: pytest.CaptureFixture[str], *words: str, seconds: float | None = None
) -> str:
    parser = argparse.ArgumentParser()
    status.add_arguments(parser)
    running = status.run(parser.parse_args(words), Settings(redis_url=SecretStr(redis_url)))
    if seconds is None:
        assert await running == 0
    else:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(running, seconds)
    return capsys.readouterr().out


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "150")
    monkeypatch.setattr(display, "is_for_people", lambda: True)


async def test_into_a_pipe(
    redis_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line for each stream and job, however narrow a window would be."""
    monkeypatch.setattr(display, "is_for_people", lambda: False)
    monkeypatch.setenv("COLUMNS", "40")
    await fill(redis_url)
    lines = (await said(redis_url, capsys)).splitlines()
    assert len(lines) == 2 + 1 + 3 + 1  # two headers but no stream, two summaries, three jobs
    (row,) = [line for line in lines if "s3://b/a.mp4" in line]
    assert " ".join(row.split()) == "s3://b/a.mp4 in progress - 42 %, 2.5x, 2 min left 1/3"


async def test_for_people(redis_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "jobs" not in await said(redis_url, capsys)
    await fill(redis_url)
    text = await said(redis_url, capsys)
    row = next(line for line in text.splitlines() if "s3://b/a.mp4" in line)
    assert "in progress" in row
    assert "━━━━" in row
    assert "42 %, 2.5x, 2 min left" in row
    assert "1/3" in row
    assert "jobs: 1 in progress, 1 queued, 1 failed" in text
    assert r"[red]x[/red]\n\x1b[31m.mp4" in text
    assert "\x1b" not in text
    assert "0123abcd" not in text


async def test_a_name_can_be_read_in_a_usual_window(
    redis_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    await fill(redis_url)
    text = await said(redis_url, capsys)
    assert "s3://b/a.mp4" in text
    assert max(map(len, text.splitlines())) <= 80


async def test_for_programs(redis_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    await fill(redis_url)
    found = json.loads(await said(redis_url, capsys, "--json"))
    assert [job["id"] for job in found["jobs"]] == ["s0-hls", "s2-hls", "s1-hls"]
    assert found["jobs"][0]["progress"]["eta_seconds"] == 90
    assert found["totals"]["jobs"] == {"queued": 1, "in_progress": 1, "complete": 0, "failed": 1}
    assert "0123abcd" not in json.dumps(found)
    few = json.loads(await said(redis_url, capsys, "--json", "--limit", "1"))
    assert (len(few["jobs"]), few["totals"]["jobs"]["queued"]) == (1, 1)


async def test_it_goes_on_when_asked_to(
    redis_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "INTERVAL_S", 0.1)
    await fill(redis_url)
    lines = (await said(redis_url, capsys, "--watch", "--json", seconds=1)).splitlines()
    assert len(lines) >= 2
    assert all(len(json.loads(line)["jobs"]) == 3 for line in lines)
    assert "s3://b/a.mp4" in await said(redis_url, capsys, "--watch", seconds=1)
