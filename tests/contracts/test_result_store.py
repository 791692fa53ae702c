"""What every result store must do: one result of each job, the accepted one, whoever asks again."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from tests.support.servers import S3Place

from cefmp4.jobs.ledger import RedisLedger, open_ledger
from cefmp4.jobs.results import ObjectResults
from cefmp4.model.job import Job, JobInput, JobKind, JobSpec, Lane
from cefmp4.ports.results import JobResult, ResultStore
from cefmp4.storage.s3.store import S3Config, open_s3_store

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
    ledger: RedisLedger
    find: Callable[[str], Awaitable[dict[str, Any] | None]]

    async def begun(self) -> Job:
        spec = JobSpec(subject=SUBJECT, kind=JobKind.HLS, input=JobInput(key="a"))
        if await self.ledger.find(spec.id) is None:
            await self.ledger.submit(spec)
        job = await self.ledger.begin(Lane.HLS_LOOK, owner="one", slot="", offered=spec.id)
        assert job is not None
        return job


@pytest_asyncio.fixture
async def object_backend(s3_server: S3Place, redis_url: str) -> AsyncIterator[Backend]:
    """`result.json` beside the playlists, and the ledger in Redis."""
    config = S3Config(
        endpoint_url=s3_server.endpoint_url,
        access_key=s3_server.access_key,
        secret=s3_server.secret_key,
        bucket=await s3_server.new_bucket(),
        region=s3_server.region,
    )
    async with open_s3_store(config) as store, open_ledger(redis_url, lease_seconds=60) as ledger:

        async def find(subject: str) -> dict[str, Any] | None:
            key = f"hls/{subject}/result.json"
            if await store.head(key) is None:
                return None
            found: dict[str, Any] = json.loads(await store.read(key))
            return found

        yield Backend(ObjectResults(store, ledger), ledger, find)


@pytest.fixture(params=["object_backend"])
def backend(request: pytest.FixtureRequest) -> Backend:
    found: Backend = request.getfixturevalue(request.param)
    return found


def result_of(job: Job, **changes: Any) -> JobResult:
    document = {"made_by": job.fence, "name": "Pr\xfcfung", "segments": [ROW], **changes}
    return JobResult(
        job_id=job.id, kind=job.kind, subject=SUBJECT, fence=job.fence, document=document
    )


async def test_an_accepted_result_is_kept_with_all_its_rows(backend: Backend) -> None:
    job = await backend.begun()
    await backend.ledger.accept(job.id, job.fence, {})
    result = result_of(job)
    assert await backend.results.accept(result)
    assert await backend.find(SUBJECT) == result.document


async def test_the_same_result_again_changes_nothing(backend: Backend) -> None:
    """The worker died before it could say that the job is complete; another hands it over again."""
    first = await backend.begun()
    await backend.ledger.accept(first.id, first.fence, {})
    assert await backend.results.accept(result_of(first))
    await backend.ledger.requeue(first, error="the worker died")
    second = await backend.begun()
    assert second.accepted == first.fence
    assert await backend.results.accept(result_of(first))
    assert await backend.ledger.commit(second.id, second.fence)
    assert await backend.results.accept(result_of(first))
    assert await backend.find(SUBJECT) == result_of(first).document


async def test_a_result_that_nobody_accepted_is_refused(backend: Backend) -> None:
    job = await backend.begun()
    assert not await backend.results.accept(result_of(job))
    assert await backend.find(SUBJECT) is None


async def test_the_result_of_a_zombie_is_refused(backend: Backend) -> None:
    """Before the accepted one is there, and after."""
    zombie = await backend.begun()
    await backend.ledger.requeue(zombie, error="the worker seems dead")
    job = await backend.begun()
    await backend.ledger.accept(job.id, job.fence, {})
    assert not await backend.results.accept(result_of(zombie))
    assert await backend.find(SUBJECT) is None
    assert await backend.results.accept(result_of(job))
    assert not await backend.results.accept(result_of(zombie))
    assert await backend.find(SUBJECT) == result_of(job).document


async def test_a_job_that_is_forgotten_has_no_result_to_keep(backend: Backend) -> None:
    job = await backend.begun()
    unknown = JobResult(job_id="other", kind=job.kind, subject="other", fence=1, document={})
    assert not await backend.results.accept(unknown)
    assert await backend.find("other") is None


async def test_a_day_of_segments_is_kept(backend: Backend) -> None:
    job = await backend.begun()
    await backend.ledger.accept(job.id, job.fence, {})
    rows = [{**ROW, "index": number} for number in range(24 * 3600 // 6)]
    result = result_of(job, segments=rows)
    assert await backend.results.accept(result)
    assert await backend.find(SUBJECT) == result.document
