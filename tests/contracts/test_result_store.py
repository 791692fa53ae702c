"""What every result store must do: keep the one result of each job, whoever hands it over again."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import pytest_asyncio
from tests.support.servers import S3Place
from tests.support.surreal_backend import config_of, embedded_config
from tests.support.surreal_results import read_result
from tests.support.surreal_server import serving_surreal

from cefmp4.model.job import JobInput, JobKind, job_id_of
from cefmp4.ports.results import JobResult, ResultStore
from cefmp4.results.objects import ACCEPTED_AT, ATTEMPT, ObjectResults
from cefmp4.results.postgres import PostgresResults
from cefmp4.results.surrealdb import SurrealResults
from cefmp4.storage.postgres.link import Postgres
from cefmp4.storage.postgres.migrate import migrate
from cefmp4.storage.s3.store import open_s3_store
from cefmp4.storage.surreal.link import open_surreal

pytestmark = pytest.mark.integration

SUBJECT = "20260101T000000Z-0badcafe"
ROW = {
    "index": 0,
    "start": 0.0,
    "end": 6.006,
    "bytes": 123_456,
    "key": f"hls/{SUBJECT}/hevc-1080p.a1/seg_00000.m4s",
    "bucket": "recordings",
    "size": "1920x1080",
    "fps": 29.97,
    "codec": "hvc1.1.6.L120.90",
}


@dataclass
class Backend:
    """A store under test; `find` reads what it holds, past the port."""

    results: ResultStore
    find: Callable[[str], Awaitable[dict[str, Any] | None]]


@pytest_asyncio.fixture
async def object_backend(s3_server: S3Place) -> AsyncIterator[Backend]:
    """`result.json` beside the playlists."""
    async with open_s3_store(s3_server.config(await s3_server.new_bucket())) as store:

        async def find(subject: str) -> dict[str, Any] | None:
            key = f"hls/{subject}/result.json"
            if await store.head(key) is None:
                return None
            found: dict[str, Any] = json.loads(await store.read(key))
            return {name: found[name] for name in found if name not in (ATTEMPT, ACCEPTED_AT)}

        yield Backend(ObjectResults(store, bucket="b"), find)


@pytest_asyncio.fixture
async def postgres_backend(postgres: Postgres) -> Backend:
    """Rows in tables."""
    await migrate(postgres)

    async def find(subject: str) -> dict[str, Any] | None:
        rows = await postgres.fetch(
            "SELECT document FROM cefmp4.results WHERE subject = %s", [subject]
        )
        return rows[0]["document"] if rows else None

    return Backend(PostgresResults(postgres), find)


@pytest_asyncio.fixture
async def surreal_backend() -> AsyncIterator[Backend]:
    """Rows on a server."""
    async with serving_surreal() as server, open_surreal(config_of(server)) as link:
        yield Backend(SurrealResults(link, bucket="recordings"), partial(read_result, link))


@pytest_asyncio.fixture
async def embedded_surreal_backend() -> AsyncIterator[Backend]:
    """Rows in the engine of this process."""
    async with open_surreal(embedded_config()) as link:
        yield Backend(SurrealResults(link, bucket="recordings"), partial(read_result, link))


@pytest.fixture(
    params=["object_backend", "postgres_backend", "surreal_backend", "embedded_surreal_backend"]
)
def backend(request: pytest.FixtureRequest) -> Backend:
    found: Backend = request.getfixturevalue(request.param)
    return found


def result_of(subject: str = SUBJECT, *, accepted_at: float = 1.0, **changes: Any) -> JobResult:
    """`changes`: to the document."""
    document = {"made_by": "a1", "name": "Pr\xfcfung", "segments": [ROW], **changes}
    return JobResult(
        job_id=job_id_of(subject, JobKind.HLS),
        kind=JobKind.HLS,
        subject=subject,
        source=JobInput(bucket="recordings", key=f"streams/{subject}/a.mp4", size=1, etag="e"),
        attempt=f"a{accepted_at:g}",
        accepted_at=accepted_at,
        document=document,
    )


async def test_a_result_is_kept_with_all_its_rows(backend: Backend) -> None:
    await backend.results.keep(result_of())
    assert await backend.find(SUBJECT) == result_of().document


async def test_the_same_result_again_changes_nothing(backend: Backend) -> None:
    """The worker died before it could say that it was kept; another hands it over again."""
    for _ in range(2):
        await backend.results.keep(result_of())
    assert await backend.find(SUBJECT) == result_of().document


async def test_a_job_that_began_anew_has_its_new_result_alone(backend: Backend) -> None:
    await backend.results.keep(result_of())
    await backend.results.keep(result_of(made_by="a2", segments=[], accepted_at=2.0))
    found = await backend.find(SUBJECT)
    assert found == result_of(made_by="a2", segments=[]).document


async def test_a_late_attempt_changes_nothing(backend: Backend) -> None:
    """Of a run that was given up, when the result of the next is there."""
    await backend.results.keep(result_of(made_by="a2", segments=[], accepted_at=2.0))
    await backend.results.keep(result_of(accepted_at=1.0))
    assert await backend.find(SUBJECT) == result_of(made_by="a2", segments=[]).document


async def test_it_says_where_the_result_is(backend: Backend) -> None:
    first = await backend.results.keep(result_of())
    assert first == await backend.results.keep(result_of())
    assert first != await backend.results.keep(result_of("other"))
    assert "://" in first


async def test_results_of_other_jobs_are_left_alone(backend: Backend) -> None:
    await backend.results.keep(result_of())
    await backend.results.keep(result_of("other", made_by="a2"))
    assert await backend.find(SUBJECT) == result_of().document
    assert await backend.find("third") is None


async def test_a_day_of_segments_is_kept(backend: Backend) -> None:
    result = result_of(segments=[{**ROW, "index": number} for number in range(24 * 3600 // 6)])
    await backend.results.keep(result)
    assert await backend.find(SUBJECT) == result.document
