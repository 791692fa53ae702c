"""A job of every source ends in every store; and whatever dies between them, each job is done once,
and its result is stored once."""

import asyncio
import json
import os
import shutil
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psycopg
import pytest
from awscrt.checksums import crc64nvme
from tests.support.job_workers import Worker, Yard, copied, encoded, open_yard
from tests.support.postgres_server import PostgresServer
from tests.support.servers import SwiftServer
from tests.support.service import reached
from tests.support.sqs_server import KEYS, REGION, QueueUnderTest, SqsServer
from tests.support.surreal_server import (
    DATABASE,
    NAMESPACE,
    PASSWORD,
    USER,
    SurrealServer,
    serving_surreal,
)

from cefmp4.jobs.webhook_signatures import sign_hex
from cefmp4.model.job import MOST_TELLING_FIRST, Job

pytestmark = [pytest.mark.integration, pytest.mark.acceptance, pytest.mark.timeout(300)]

SECRET = "of-the-senders-only"
STORES = ("s3", "postgres", "hybrid", "surrealdb")
AWAY = ("Postgres", "SQS", "SurrealDB")  # at the same moment
SOURCES = ("internal", "postgres", "sqs", "webhook", "surrealdb")
ENDS_S = 90.0
OF_EACH = int(os.environ.get("CEFMP4_JOBS_OF_EACH", "3"))


@dataclass(frozen=True)
class Place:
    """Workers, and all that jobs come from and results go to."""

    yard: Yard
    postgres: PostgresServer
    database: str
    queue: QueueUnderTest
    surreal: SurrealServer

    async def put_object(self, name: str, recording: Path) -> str:
        key, data = f"incoming/{name}.mp4", await asyncio.to_thread(recording.read_bytes)
        await self.yard.store.put_object(
            key, data, content_type="video/mp4", metadata={}, crc64=crc64nvme(data)
        )
        return key

    async def ask(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        url = self.postgres.url(self.database)
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            cursor = await connection.execute(query, values)
            return await cursor.fetchall() if cursor.description else []

    async def put_row(self, key: str) -> None:
        await self.ask("INSERT INTO jobs (key) VALUES (%s)", key)

    async def rows(self) -> Mapping[str, str]:
        """The state of each job in the table, by its key."""
        return dict(await self.ask("SELECT key, status FROM jobs"))

    async def put_record(self, key: str) -> None:
        await self.surreal.rows("CREATE hls_job SET status = 'queued', key = $key", key=key)

    async def records(self) -> Mapping[str, str]:
        """As `rows`, of SurrealDB."""
        found = await self.surreal.rows("SELECT key, status FROM hls_job")
        return {record["key"]: record["status"] for record in found}

    async def post(self, key: str) -> None:
        body, stamp = json.dumps({"key": key}).encode(), str(int(time.time()))
        headers = {"X-Timestamp": stamp, "X-Signature": sign_hex(SECRET, stamp, body)}
        address = f"http://127.0.0.1:{self.yard.site.service.port}/jobs"
        async with (
            aiohttp.ClientSession() as session,
            session.post(address, data=body, headers=headers) as answer,
        ):
            assert answer.status == 202, await answer.text()

    async def jobs(self) -> dict[str, Job]:
        """By the last part of what they were made of."""
        found = await self.yard.desk.latest(MOST_TELLING_FIRST, 1000)
        return {job.spec.input.name.rpartition("/")[2]: job for job in found}

    async def all_end(self, names: set[str], timeout_s: float = ENDS_S) -> dict[str, Job]:
        async def have_ended() -> bool:
            jobs = await self.jobs()
            return names <= jobs.keys() and all(jobs[name].is_final for name in names)

        assert await reached(have_ended, timeout_s), await self.jobs()
        return await self.jobs()

    async def check_rows_of(self, job: Job) -> None:
        """All of its one result, and nothing of another attempt."""
        assert job.result is not None
        kept = await self.ask("SELECT attempt FROM cefmp4.results WHERE job_id = %s", job.id)
        assert kept == [(job.accepted,)]
        query = "SELECT count(*) FROM cefmp4.hls_segments WHERE subject = %s AND key LIKE %s"
        ours = await self.ask(query, job.spec.subject, f"%.{job.accepted}/%")
        total = await self.ask(query, job.spec.subject, "%")
        assert ours == total == [(job.result["segments"],)]

    async def check_records_of(self, job: Job) -> None:
        assert job.result is not None
        subject = job.spec.subject
        masters = await self.surreal.rows(
            "SELECT attempt FROM hls_playlist WHERE stream_id = $subject AND document != NONE",
            subject=subject,
        )
        assert [one["attempt"] for one in masters] == [job.accepted]
        segments = await self.surreal.rows(
            "SELECT key FROM hls_segment WHERE string::contains(key, $subject)", subject=subject
        )
        assert len(segments) == job.result["segments"]
        assert all(f".{job.accepted}/" in one["key"] for one in segments)


@asynccontextmanager
async def open_place(
    s3_server: SwiftServer,
    postgres: PostgresServer,
    sqs_server: SqsServer,
    folder: Path,
    **changes: str,
) -> AsyncIterator[Place]:
    database = await postgres.new_database()
    async with serving_surreal() as surreal, sqs_server.new_queue(hidden_s=5) as queue:
        given = {
            **KEYS,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_REGION": REGION,
            "AWS_SQS_QUEUE_URL": queue.url,
            "SQS_WAIT_TIME": "1",
            "DATABASE_URL": postgres.url(database),
            "SURREAL_ENDPOINT": surreal.address,
            "SURREAL_USERNAME": USER,
            "SURREAL_PASSWORD": PASSWORD,
            "SURREAL_NAMESPACE": NAMESPACE,
            "SURREAL_DATABASE": DATABASE,
            "JOB_SOURCE_TYPE": ",".join(SOURCES),
            "WEBHOOK_SECRET": SECRET,
            "WORKER_POLL_MS": "200",
            "HLS_THUMBNAILS": "false",
        }
        async with open_yard(s3_server, folder, **given | changes) as yard:
            yield Place(yard, postgres, database, queue, surreal)


@pytest.mark.parametrize("storage", STORES)
async def test_a_job_of_each_source_ends_in_the_store(
    storage: str,
    s3_server: SwiftServer,
    postgres_server: PostgresServer,
    sqs_server: SqsServer,
    tmp_path: Path,
) -> None:
    opened = open_place(s3_server, postgres_server, sqs_server, tmp_path, STORAGE_TYPE=storage)
    async with opened as place:
        yard = place.yard
        recording = Path((await copied(tmp_path, 4, "recording.mp4")).path)
        await yard.site.service.start()
        await yard.new_worker("--sources").start()
        shutil.copy(recording, yard.site.watched / "internal.mp4")
        await place.put_row(await place.put_object("postgres", recording))
        await place.queue.send({"key": await place.put_object("sqs", recording)})
        await place.post(await place.put_object("webhook", recording))
        await place.put_record(await place.put_object("surrealdb", recording))
        jobs = await place.all_end({f"{name}.mp4" for name in SOURCES})
        for name in SOURCES:
            job = jobs[f"{name}.mp4"]
            await yard.check_done_once(job)
            document = json.loads(await yard.store.read(f"hls/{job.spec.subject}/result.json"))
            assert document["attempt"] == job.accepted
            stored_in = (job.result or {})["stored_in"]
            assert len(stored_in) == (1 if storage == "s3" else 2)
            if storage in ("postgres", "hybrid"):
                await place.check_rows_of(job)
                assert stored_in[0].startswith("postgresql://")
                assert "of-the-tests" not in str(stored_in)
            if storage == "surrealdb":
                await place.check_records_of(job)
                assert stored_in[0].startswith("surrealdb://")
                assert PASSWORD not in str(stored_in)

        async def are_told() -> bool:
            ends = (*(await place.rows()).values(), *(await place.records()).values())
            return ends == ("done", "complete")

        assert await reached(are_told, 20), (await place.rows(), await place.records())
        assert await place.queue.left() == 0


async def test_whatever_dies_no_job_is_lost_and_no_result_stored_twice(
    s3_server: SwiftServer, sqs_server: SqsServer, tmp_path: Path
) -> None:
    postgres = PostgresServer(tmp_path / "postgres")
    await postgres.start()
    changes = {"STORAGE_TYPE": "postgres", "CPU_SLOTS": "1", "WATCH_DIR": str(tmp_path)}
    try:
        async with open_place(s3_server, postgres, sqs_server, tmp_path, **changes) as place:
            recording = Path((await encoded(tmp_path, 4, "recording.mp4")).path)
            workers = [await started(place.yard) for _ in range(2)]
            kinds = ("row", "message", "record")
            names = {f"{kind}{number}" for kind in kinds for number in range(OF_EACH)}
            asking = asyncio.create_task(ask_for(place, names, recording))
            await some_are_begun(place, 2)
            await workers[0].kill()
            workers[0] = await started(place.yard)
            await some_are_begun(place, 4)
            place.yard.temporal.process.kill()
            await place.yard.temporal.start()
            await some_are_begun(place, 6)
            postgres.kill()
            sqs_server.pause()
            await place.surreal.stop()
            await both_say_who_is_away(workers)
            sqs_server.resume()
            await postgres.start()
            await place.surreal.start()
            await asking
            jobs = await place.all_end({f"{name}.mp4" for name in names}, 200)
            assert len(jobs) == len(names)
            for job in jobs.values():
                await place.yard.check_done_once(job)
                await place.check_rows_of(job)

            async def are_told() -> bool:
                ends = (*(await place.rows()).values(), *(await place.records()).values())
                return ends == ("done",) * OF_EACH + ("complete",) * OF_EACH

            assert await reached(are_told, 30), (await place.rows(), await place.records())
            assert await place.queue.left() == 0
            kept = await place.ask("SELECT count(*) FROM cefmp4.results")
            assert kept == [(len(names),)]
    finally:
        await postgres.stop()


async def started(yard: Yard) -> Worker:
    worker = yard.new_worker("--sources")
    await worker.start()
    return worker


async def both_say_who_is_away(workers: list[Worker]) -> None:
    """And that they are not ready."""
    reasons = list[str]()

    async def say_so() -> bool:
        async with aiohttp.ClientSession() as session:
            for worker in workers:
                port = worker.settings["WORKER_PORT"]
                async with session.get(f"http://127.0.0.1:{port}/healthz") as response:
                    reasons[:] = (await response.json())["reasons"]
                if not {f"{name} does not answer" for name in AWAY} <= set(reasons):
                    return False
        return True

    assert await reached(say_so, 60), reasons


async def some_are_begun(place: Place, count: int) -> None:
    async def are_begun() -> bool:
        return len({one.job_id for one in place.yard.begun()}) >= count

    assert await reached(are_begun, 60), place.yard.begun()


async def ask_for(place: Place, names: set[str], recording: Path) -> None:
    """One after another, while things die; whoever asks tries again, too."""
    for name in sorted(names, key=lambda name: name[::-1]):
        key = await place.put_object(name, recording)
        if name.startswith("message"):
            await place.queue.send({"key": key})
            continue
        if name.startswith("record"):
            await place.put_record(key)
            continue

        async def is_in(key: str = key) -> bool:
            try:
                await place.put_row(key)
            except psycopg.OperationalError:
                return False
            return True

        assert await reached(is_in, 30), key
