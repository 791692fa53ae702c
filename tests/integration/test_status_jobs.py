"""`cefmp4 status` shows jobs beside streams."""

import argparse
import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from pydantic import SecretStr
from tests.support.pretence import Pretence, in_state, pretending, until, with_progress
from tests.support.temporal_server import JobPlace

from cefmp4.commands import display, status
from cefmp4.config.settings import Settings
from cefmp4.model.job import MOST_TELLING_FIRST, JobInput, JobKind, JobSpec, JobState, Step
from cefmp4.temporal.desk import Desk
from cefmp4.temporal.worker import working

pytestmark = pytest.mark.integration
HOSTILE = "[red]x[/red]\n\x1b[31m.mp4"
SIGNED = "https://h/o?X-Amz-Signature=0123abcd failed"


def spec(name: str, key: str, **params: str) -> JobSpec:
    source = JobInput(bucket="b", key=key)
    return JobSpec(subject=name, kind=JobKind.HLS, input=source, params=params)


@pytest_asyncio.fixture
async def filled(settings: Settings, job_place: JobPlace, tmp_path: Path) -> AsyncIterator[None]:
    """One job runs, one waits, one failed."""
    client = await job_place.connect()
    desk = Desk(client)
    with pretending(tmp_path, Pretence(error=SIGNED)) as host:
        async with working(client, host, drain_s=0):
            await desk.submit(spec("s0", "a.mp4", waits="1"))
            await with_progress(desk, "s0-hls")
            await desk.submit(spec("s1", HOSTILE, bad="1", copy="1"))
            await in_state(desk, "s1-hls", JobState.FAILED)
            await desk.submit(spec("s2", "b.mp4", waits="1"))

            async def are_listed() -> bool:
                jobs = await desk.latest(MOST_TELLING_FIRST, 9)
                in_order = [job.id for job in jobs] == ["s0-hls", "s2-hls", "s1-hls"]
                return in_order and jobs[1].is_queued and jobs[1].step is Step.ENCODE

            await until(are_listed)
            yield


@pytest.fixture
def settings(redis_url: str, job_place: JobPlace) -> Settings:
    return Settings(redis_url=SecretStr(redis_url), **job_place.settings)


async def said(
    settings: Settings,
    capsys: pytest.CaptureFixture[str],
    *words: str,
    seconds: float | None = None,
) -> str:
    parser = argparse.ArgumentParser()
    status.add_arguments(parser)
    capsys.readouterr()
    running = status.run(parser.parse_args(words), settings)
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


@pytest.mark.usefixtures("filled")
async def test_into_a_pipe(
    settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line for each stream and job, however narrow a window would be."""
    monkeypatch.setattr(display, "is_for_people", lambda: False)
    monkeypatch.setenv("COLUMNS", "40")
    lines = (await said(settings, capsys)).splitlines()
    assert len(lines) == 2 + 1 + 3 + 1  # two headers but no stream, two summaries, three jobs
    (row,) = [line for line in lines if "s3://b/a.mp4" in line]
    assert " ".join(row.split()) == "s3://b/a.mp4 in progress - 42 %, 2.5x, 2 min left 1/3"


@pytest.mark.usefixtures("filled")
async def test_for_people(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    text = await said(settings, capsys)
    row = next(line for line in text.splitlines() if "s3://b/a.mp4" in line)
    assert "in progress" in row
    assert "━━━━" in row
    assert "42 %, 2.5x, 2 min left" in row
    assert "1/3" in row
    assert "jobs: 1 in progress, 1 queued, 1 failed" in text
    assert r"[red]x[/red]\n\x1b[31m.mp4" in text
    assert "\x1b" not in text
    assert "0123abcd" not in text


@pytest.mark.usefixtures("filled")
async def test_a_name_can_be_read_in_a_usual_window(
    settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = await said(settings, capsys)
    assert "s3://b/a.mp4" in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.usefixtures("filled")
async def test_for_programs(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(await said(settings, capsys, "--json"))
    assert [job["id"] for job in found["jobs"]] == ["s0-hls", "s2-hls", "s1-hls"]
    assert found["jobs"][0]["progress"]["eta_seconds"] == 90
    assert found["totals"]["jobs"] == {"queued": 1, "in_progress": 1, "complete": 0, "failed": 1}
    assert "0123abcd" not in json.dumps(found)
    few = json.loads(await said(settings, capsys, "--json", "--limit", "1"))
    assert (len(few["jobs"]), few["totals"]["jobs"]["queued"]) == (1, 1)


@pytest.mark.usefixtures("filled")
async def test_it_goes_on_when_asked_to(
    settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "INTERVAL_S", 0.1)
    text = await said(settings, capsys, "--watch", "--json", seconds=3)
    lines = [
        line for line in text.splitlines() if line[:1] == "{"
    ]  # a worker of the test logs, too
    assert len(lines) >= 2
    assert {len(json.loads(line)["jobs"]) for line in lines} <= {3, 0}  # 0: Temporal was too busy
    assert len(json.loads(lines[-1])["jobs"]) == 3
    assert "s3://b/a.mp4" in await said(settings, capsys, "--watch", seconds=3)


async def test_without_jobs_nothing_is_said_of_them(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "jobs" not in await said(settings, capsys)


async def test_streams_are_shown_while_temporal_is_away(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    away = settings.model_copy(update={"temporal_address": "127.0.0.1:1"})
    text = await said(away, capsys)
    assert "no streams yet" in text
    assert "jobs: nothing can be told of them: Temporal does not answer at 127.0.0.1:1" in text
    found = json.loads(await said(away, capsys, "--json"))
    assert (found["jobs"], found["totals"]["jobs"]) == ([], {})
    nowhere = settings.model_copy(update={"temporal_address": None})
    assert "TEMPORAL_ADDRESS is not set" in await said(nowhere, capsys)
    none = nowhere.model_copy(update={"handover_jobs": ()})
    assert "jobs" not in await said(none, capsys)
