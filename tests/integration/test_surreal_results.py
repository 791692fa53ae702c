"""Results in SurrealDB beyond the contract: what readers see while another attempt takes the place,
what a crash leaves, rows of others, and what documents may hold."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from surrealdb import RecordID
from tests.support.surreal_backend import config_of
from tests.support.surreal_results import read_result, read_rows
from tests.support.surreal_server import SurrealServer, serving_surreal

from cefmp4.errors import ServerUnreachableError, TablesMissingError, TransientError
from cefmp4.model.job import JobInput, JobKind
from cefmp4.ports.results import JobResult
from cefmp4.results import surrealdb
from cefmp4.results.surrealdb import SurrealResults
from cefmp4.retry import for_a_while
from cefmp4.storage.surreal.link import SurrealLink, open_surreal

pytestmark = pytest.mark.integration

SUBJECT = "20260101T000000Z-0badcafe"
PAGE = Path(__file__).parents[2] / "docs/results.md"
KEY = "streams/1/a.mp4"


@pytest_asyncio.fixture
async def server() -> AsyncIterator[SurrealServer]:
    async with serving_surreal() as started:
        yield started


@pytest_asyncio.fixture
async def link(server: SurrealServer) -> AsyncIterator[SurrealLink]:
    async with open_surreal(config_of(server)) as opened:
        yield opened


@pytest.fixture
def results(link: SurrealLink) -> SurrealResults:
    return SurrealResults(link, bucket="recordings")


def track(name: str, attempt: str, segments: int, *, kind: str = "video") -> dict[str, Any]:
    is_video = kind == "video"
    return {
        "name": name,
        "kind": kind,
        "playlist": f"{name}.{attempt}/index.m3u8",
        "codec": "hvc1.1.6.L120.90",
        "width": 1920 if is_video else None,
        "bytes": 100 * segments,
        "duration_seconds": 6.0 * segments,
        "segments": [
            {
                "index": n,
                "start": 6.0 * n,
                "end": 6.0 * (n + 1),
                "bytes": 100,
                "key": f"hls/{SUBJECT}/{name}.{attempt}/seg_{n:05}.m4s",
                "bucket": "recordings",
                "size": "1920x1080" if is_video else "",
                "fps": 29.97 if is_video else None,
                "codec": "hvc1.1.6.L120.90",
            }
            for n in range(segments)
        ],
    }


def result(attempt: str, accepted_at: float, segments: int = 3, **changes: Any) -> JobResult:
    document = {
        "stream_id": SUBJECT,
        "bucket": "recordings",
        "master_key": f"hls/{SUBJECT}/master.m3u8",
        "duration_seconds": 6.0 * segments,
        "total_bytes": 200 * segments,
        "renditions": [
            track("1080p", attempt, segments),
            track("audio", attempt, segments, kind="audio"),
        ],
        **changes,
    }
    return JobResult(
        job_id=f"{SUBJECT}-hls",
        kind=JobKind.HLS,
        subject=SUBJECT,
        source=JobInput(bucket="recordings", key=KEY, size=5000, etag="etag"),
        attempt=attempt,
        accepted_at=accepted_at,
        document=document,
    )


async def counts(server: SurrealServer) -> dict[str, int]:
    found = await server.rows("SELECT attempt, count() AS rows FROM hls_segment GROUP BY attempt")
    return {one["attempt"]: one["rows"] for one in found}


async def test_the_rows_are_those_of_the_tables_that_users_know(
    results: SurrealResults, server: SurrealServer, link: SurrealLink
) -> None:
    await results.keep(result("a1", 1.0))
    (file,) = await server.rows("SELECT * FROM file")
    master_id = RecordID("hls_playlist", SUBJECT)
    facts = {name: file[name] for name in file if name not in ("id", "hls")}
    assert facts == {
        "bucket": "recordings",
        "key": KEY,
        "size": 5000,
        "etag": "etag",
        "duration": 18.0,
        "stream_id": SUBJECT,
    }
    assert file["hls"] == master_id
    found = await read_rows(link, SUBJECT)
    master = found["master"]
    assert (master["key"], master["size"]) == (f"hls/{SUBJECT}/master.m3u8", 600)
    assert (master["file"], master["attempt"], master["kind"]) == (file["id"], "a1", "master")
    video, audio = await server.rows("SELECT * FROM $ids", ids=master["renditions"])
    assert (video["name"], video["kind"], audio["kind"]) == ("1080p", "video", "audio")
    assert video["key"] == f"hls/{SUBJECT}/1080p.a1/index.m3u8"
    assert video["master"] == master_id
    assert (video["size"], video["segments"], video["meta"]["width"]) == (300, 3, 1920)
    first, *_, last = found["segments"]
    assert first["meta"] == {
        "index": 0,
        "start": 0.0,
        "end": 6.0,
        "duration": 6.0,
        "width": 1920,
        "height": 1080,
        "fps": 29.97,
        "codec": "hvc1.1.6.L120.90",
    }
    assert (first["playlist"], first["file"]) == (video["id"], file["id"])
    assert (first["bucket"], first["size"]) == ("recordings", 100)
    assert "width" not in last["meta"]


async def test_a_file_row_of_others_is_linked_and_keeps_what_it_has(
    results: SurrealResults, server: SurrealServer
) -> None:
    await server.put("file", "theirs", {"bucket": "recordings", "key": KEY, "title": "Talk"})
    await server.put("file", "other bucket", {"bucket": "films", "key": KEY})
    await results.keep(result("a1", 1.0))
    (theirs,) = await server.rows("SELECT * FROM file:theirs")
    assert (theirs["title"], theirs["size"]) == ("Talk", 5000)
    (count,) = await server.rows("SELECT count() FROM file GROUP ALL")
    assert count["count"] == 2
    (other,) = await server.rows("SELECT * FROM file:`other bucket`")
    assert "hls" not in other


async def test_a_file_row_without_a_bucket_is_one_of_our_bucket(
    results: SurrealResults, server: SurrealServer
) -> None:
    await server.put("file", "theirs", {"key": KEY})
    await results.keep(result("a1", 1.0))
    (file,) = await server.rows("SELECT * FROM file")
    assert (file["id"].id, file["bucket"]) == ("theirs", "recordings")


async def test_rows_of_others_stay(results: SurrealResults, server: SurrealServer) -> None:
    await server.put("hls_playlist", "old", {"file": RecordID("file", "x")})
    await server.put("hls_segment", "old", {"n": 1})
    await results.keep(result("a1", 1.0))
    await server.rows("UPDATE $row SET note = 'theirs'", row=RecordID("hls_playlist", SUBJECT))
    await results.keep(result("a2", 2.0))
    assert await server.rows("SELECT VALUE n FROM hls_segment:old") == [1]
    (master,) = await server.rows("SELECT * FROM $row", row=RecordID("hls_playlist", SUBJECT))
    assert (master["note"], master["attempt"]) == ("theirs", "a2")


async def test_what_comes_again_writes_nothing(
    results: SurrealResults, server: SurrealServer
) -> None:
    await results.keep(result("a1", 1.0))
    before = await server.rows("SELECT * FROM hls_playlist, hls_segment, file")
    await results.keep(result("a1", 1.0))
    await results.keep(result("a0", 0.5, segments=9))
    assert await server.rows("SELECT * FROM hls_playlist, hls_segment, file") == before


async def test_readers_see_one_attempt_or_the_other(
    results: SurrealResults, link: SurrealLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surrealdb, "AT_A_TIME", 20)
    await results.keep(result("a0", 0.5, segments=50))
    is_over = asyncio.Event()

    async def read() -> set[str]:
        seen = set()
        while not is_over.is_set():
            found = await read_rows(link, SUBJECT)
            attempts = {row["attempt"] for row in found["segments"]}
            assert attempts == {found["master"]["attempt"]}
            assert len(found["segments"]) == 100
            seen |= attempts
        return seen

    readers = [asyncio.create_task(read()) for _ in range(2)]
    for number in range(1, 5):
        await results.keep(result(f"a{number}", float(number), segments=50))
    is_over.set()
    seen = set[str]().union(*await asyncio.gather(*readers))
    assert len(seen) > 1


async def test_of_attempts_at_the_same_moment_the_one_accepted_last_stands(
    server: SurrealServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each writer has a connection of its own."""
    monkeypatch.setattr(surrealdb, "AT_A_TIME", 3)
    order = (3, 1, 4, 2)
    async with open_surreal(config_of(server)) as one, open_surreal(config_of(server)) as other:
        writers = [SurrealResults(link, bucket="recordings") for link in (one, other)]
        await asyncio.gather(
            *[writers[n % 2].keep(result(f"a{n}", float(n), segments=5 + n)) for n in order]
        )
        kept = await read_result(one, SUBJECT)
    assert kept is not None
    assert [len(one["segments"]) for one in kept["renditions"]] == [9, 9]
    assert await counts(server) == {"a4": 18}
    masters = await server.rows("SELECT VALUE attempt FROM hls_playlist")
    assert masters == ["a4"] * 3


async def test_what_a_crash_left_goes_with_the_next_attempt(
    results: SurrealResults,
    server: SurrealServer,
    link: SurrealLink,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await results.keep(result("a1", 1.0))
    real, calls = link.query, 0

    async def dies(text: str, **variables: Any) -> list[Any]:
        nonlocal calls
        calls += 1
        if calls > 3:
            raise ServerUnreachableError
        return await real(text, **variables)

    monkeypatch.setattr(link, "query", dies)
    with pytest.raises(ServerUnreachableError):
        await results.keep(result("a2", 2.0))
    monkeypatch.undo()
    assert (await counts(server))["a1"] == 6
    assert "a2" in await counts(server)
    assert {row["attempt"] for row in (await read_rows(link, SUBJECT))["segments"]} == {"a1"}
    await results.keep(result("a3", 3.0))
    assert await counts(server) == {"a3": 6}


async def test_what_was_to_be_removed_when_it_died_goes_when_it_comes_again(
    results: SurrealResults, server: SurrealServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await results.keep(result("a1", 1.0))
    with monkeypatch.context() as patched:
        patched.setattr(surrealdb, "_REMOVE_FORMER", "RETURN 1")
        await results.keep(result("a2", 2.0))
    assert await counts(server) == {"a1": 6, "a2": 6}
    await results.keep(result("a2", 2.0))
    assert await counts(server) == {"a2": 6}


async def test_the_server_dies_in_mid_write_and_comes_back(
    results: SurrealResults,
    server: SurrealServer,
    link: SurrealLink,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(surrealdb, "AT_A_TIME", 5)

    async def keep() -> str:
        return await results.keep(result("a1", 1.0, segments=200))

    patient = for_a_while(keep, seconds=30.0, on=(TransientError,))
    keeping = asyncio.create_task(patient)
    for _ in range(3):
        await asyncio.sleep(0.02)
        await server.stop()
        await server.start()
    await keeping
    kept = await read_result(link, SUBJECT)
    assert kept is not None
    assert [len(one["segments"]) for one in kept["renditions"]] == [200, 200]


async def test_documents_may_hold_anything_that_json_does(
    results: SurrealResults, server: SurrealServer, link: SurrealLink
) -> None:
    odd: dict[str, Any] = {
        "notes": ["\0 and \ud800", "'; DELETE file; --", "$subject", "é"],
        "": {"a`b": [None, 1.0]},
    }
    subject = "it's `odd` ⟩ \n"
    hostile = result("a'; --", 1.0, **odd)
    hostile = JobResult(
        job_id="j",
        kind=JobKind.HLS,
        subject=subject,
        source=JobInput(bucket="recordings", key="a'; DELETE file; --\0.mp4"),
        attempt=hostile.attempt,
        accepted_at=1.0,
        document=hostile.document,
    )
    assert (await results.keep(hostile)).endswith(subject)
    found = await read_rows(link, subject)
    document = found["master"]["document"]
    assert document["notes"] == ["\\x00 and \\ud800", *odd["notes"][1:]]
    assert document[""] == {"a`b": [None, 1.0]}
    assert len(found["segments"]) == 6
    (file,) = await server.rows("SELECT * FROM file")
    assert file["key"] == "a'; DELETE file; --\\x00.mp4"


async def test_a_schema_that_refuses_us_is_no_fault_of_the_recording(
    results: SurrealResults, server: SurrealServer
) -> None:
    """So that the job waits until an operator has mended it."""
    await server.rows("DEFINE FIELD attempt ON hls_segment TYPE number")
    with pytest.raises(TablesMissingError, match="attempt"):
        await results.keep(result("a1", 1.0))
    await server.rows("REMOVE FIELD attempt ON hls_segment")
    await results.keep(result("a1", 1.0))
    assert await counts(server) == {"a1": 6}


async def test_it_is_read_as_the_document_says(results: SurrealResults, link: SurrealLink) -> None:
    page = await asyncio.to_thread(PAGE.read_text)
    (query,) = re.findall(r"^```surql\n(.*?)^```", page, re.M | re.S)
    await results.keep(result("a1", 1.0))
    *_, found = await link.query(query.replace("a.mp4", KEY))
    assert found["master"]["attempt"] == "a1"
    assert len(found["segments"]) == 6


async def test_what_a_later_version_says_of_a_segment_is_kept_too(
    results: SurrealResults, link: SurrealLink
) -> None:
    made = result("a1", 1.0)
    made.document["renditions"][0]["segments"][0]["loudness"] = -23.5
    await results.keep(made)
    assert (await read_rows(link, SUBJECT))["segments"][0]["meta"]["loudness"] == -23.5
