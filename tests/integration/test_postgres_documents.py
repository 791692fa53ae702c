"""What the documents say of Postgres works as it stands there."""

import asyncio
import re
from contextlib import aclosing
from pathlib import Path

import pytest
from tests.hls_parts import track

from cefmp4.config.reading import load_settings
from cefmp4.hls.result import HlsResult, Tier, document
from cefmp4.jobs.sources.postgres import open_source
from cefmp4.model.job import JobInput, JobKind
from cefmp4.ports.results import JobResult
from cefmp4.results.postgres import open_results
from cefmp4.storage.postgres.jobs_table import CHANNEL
from cefmp4.storage.postgres.link import Postgres

pytestmark = pytest.mark.integration

DOCS = Path(__file__).parents[2] / "docs"
SUBJECT = "20260101T000000Z-0badcafe"


def blocks(page: str, language: str) -> list[str]:
    """Of its section on Postgres."""
    section = re.search(r"^## Postgres\n(.*?)(?=^## |\Z)", (DOCS / page).read_text(), re.M | re.S)
    assert section
    return re.findall(rf"^```{language}\n(.*?)^```", section[1], re.M | re.S)


def set_as_documented(monkeypatch: pytest.MonkeyPatch, page: str, position: int, url: str) -> None:
    for line in blocks(page, "sh")[position].splitlines():
        monkeypatch.setenv(*line.split("=", 1))
    monkeypatch.setenv("DATABASE_URL", url)


async def test_the_table_of_jobs(
    monkeypatch: pytest.MonkeyPatch, postgres: Postgres, postgres_url: str
) -> None:
    insert, look, *_ = blocks("sources.md", "sql")
    set_as_documented(monkeypatch, "sources.md", 0, postgres_url)
    async with open_source(load_settings(None)[0]) as source:
        await postgres.execute(insert.encode())
        async with source.offers(10) as (offer,):
            assert offer.jobs[0] == {"key": "streams/talk.mp4", "priority": 10, "kind": "hls"}
            await source.accept(offer, ["w-hls"])
    (row,) = await postgres.fetch(look.encode())
    assert row == {"status": "processing", "attempts": 0, "error": None, "playlist": None}


async def test_a_table_of_ones_own(
    monkeypatch: pytest.MonkeyPatch, postgres: Postgres, postgres_url: str
) -> None:
    _, _, make, trigger = blocks("sources.md", "sql")
    await postgres.execute(make.encode())
    await postgres.execute(trigger.encode())
    set_as_documented(monkeypatch, "sources.md", 1, postgres_url)
    async with (
        asyncio.timeout(20),
        aclosing(postgres.listen(CHANNEL)) as told,
        open_source(load_settings(None)[0]) as source,
    ):
        await anext(told)
        await postgres.execute("INSERT INTO films (object_key) VALUES ('talk.mp4')")
        await anext(told)
        async with source.offers(10) as (offer,):
            assert offer.jobs == ({"key": "talk.mp4"},)
            await source.accept(offer, ["w-hls"])
    (row,) = await postgres.fetch("SELECT stage, cefmp4_job, owner FROM films")
    assert row == {"stage": "at work", "cefmp4_job": "w-hls", "owner": None}


async def test_the_questions_to_results(
    monkeypatch: pytest.MonkeyPatch, postgres: Postgres, postgres_url: str
) -> None:
    set_as_documented(monkeypatch, "results.md", 0, postgres_url)
    async with open_results(load_settings(None)[0]) as results:
        await results.keep(a_result())
    by_path, at_second, _ = [
        await postgres.fetch(one.encode()) for one in blocks("results.md", "sql")
    ]
    assert [row["name"] for row in by_path] == ["master", "hevc-720p"]
    assert [row["index"] for row in at_second] == [15]


def a_result() -> JobResult:
    made = HlsResult(
        tier=Tier.COPY,
        tracks=(track(*[(6.0, 900)] * 20),),
        stream_id=SUBJECT,
        bucket="b",
        master_key=f"hls/{SUBJECT}/master.m3u8",
    )
    return JobResult(
        job_id=f"{SUBJECT}-hls",
        kind=JobKind.HLS,
        subject=SUBJECT,
        source=JobInput(bucket="b", key="streams/talk.mp4", path="/watched/talk.mp4"),
        attempt="a1",
        accepted_at=1.0,
        document=document(made),
    )


async def test_the_columns_are_those_that_are_there(
    monkeypatch: pytest.MonkeyPatch, postgres: Postgres, postgres_url: str
) -> None:
    set_as_documented(monkeypatch, "results.md", 0, postgres_url)
    monkeypatch.setenv("JOB_SOURCE_TYPE", "postgres")
    settings, _ = load_settings(None)
    async with open_results(settings), open_source(settings):
        rows = await postgres.fetch(
            "SELECT table_name AS table, column_name AS name FROM information_schema.columns "
            "WHERE table_schema IN ('cefmp4', 'public')"
        )
    there = {(row["table"], row["name"]) for row in rows}
    results, sources = (DOCS / "results.md").read_text(), (DOCS / "sources.md").read_text()
    for table in ("recordings", "results", "hls_playlists", "hls_segments"):
        (told,) = re.findall(rf"^\| `{table}` \|[^|]*\|(.*)\|$", results, re.M)
        plain = re.sub(r"\([^)]*\)", "", told)
        assert {(table, name) for name in re.findall(r"`(\w+)`", plain)} == {
            one for one in there if one[0] == table
        }
    columns = re.search(r"^\| column \|(.*?)\n\n", sources, re.M | re.S)
    assert columns
    first = "".join(line.split("|")[1] for line in columns[1].splitlines()[2:])
    assert {("jobs", name) for name in re.findall(r"`(\w+)`", first)} == {
        one for one in there if one[0] == "jobs"
    }
