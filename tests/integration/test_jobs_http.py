"""Jobs over HTTP: the API, the queue's figures and the signed webhook, on an engine in memory."""

import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from pydantic import SecretStr
from tests.support.memory_engine import MemoryEngine
from tests.support.pretence import Pretence, in_state, pretending, with_progress

from cefmp4 import metrics
from cefmp4.app.engine import DeskOnDemand
from cefmp4.config.settings import Settings
from cefmp4.jobs.overview import measure_queues
from cefmp4.model.job import JobInput, JobKind, JobSpec, JobState
from cefmp4.ports.jobs import JobDesk
from cefmp4.web.api import JobApi
from cefmp4.web.listener import listening
from cefmp4.web.probes import Health, Probes
from cefmp4.web.webhook import Webhook, sign

pytestmark = pytest.mark.integration

SECRET = "a secret that nobody guesses"
NOW = 1_700_000_000.0


@dataclass
class JobPort:
    """The routes as `app` puts them together, with a clock of the test's own."""

    desk: JobDesk
    secret: str | None = SECRET
    now: float = NOW

    @asynccontextmanager
    async def serving(
        self, host: str = "127.0.0.1", token: str | None = None
    ) -> AsyncIterator[aiohttp.ClientSession]:
        settings = Settings(
            webhook_secret=SecretStr(self.secret) if self.secret else None,
            s3_bucket_name="bucket",
            worker_max_attempts=5,
            http_host=host,
            api_token=SecretStr(token) if token else None,
        )
        webhook = Webhook(settings, self.desk.submit, clock=lambda: self.now)
        routes = [
            *Probes(Health, partial(measure_queues, self.desk)).routes(),
            *JobApi(self.desk).routes(),
            *webhook.routes(),
        ]
        async with (
            listening(settings, 0, routes) as port,
            aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
        ):
            yield session


@pytest.fixture
def pretence() -> Pretence:
    return Pretence()


@pytest_asyncio.fixture
async def port(tmp_path: Path, pretence: Pretence) -> AsyncIterator[JobPort]:
    with pretending(tmp_path / "work", pretence) as host:
        engine = MemoryEngine(host)
        yield JobPort(engine)
        await engine.stop()


def spec(number: int, **params: str) -> JobSpec:
    return JobSpec(
        subject=f"s{number}",
        kind=JobKind.HLS,
        input=JobInput(bucket="b", key=f"{number}.mp4"),
        params=params,
    )


async def fill(port: JobPort) -> None:
    """One runs, two wait for its slot, one has failed."""
    await port.desk.submit(spec(0, waits="1"))
    await with_progress(port.desk, "s0-hls")
    await port.desk.submit(spec(1, waits="1"))
    await port.desk.submit(spec(2, waits="1"))
    await port.desk.submit(spec(3, bad="no video in it", copy="1"))
    await in_state(port.desk, "s3-hls", JobState.FAILED)


async def get(session: aiohttp.ClientSession, path: str) -> tuple[int, Any]:
    async with session.get(path) as response:
        return response.status, await response.json()


async def post(
    session: aiohttp.ClientSession, path: str, body: bytes = b"", **headers: str
) -> tuple[int, Any]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with session.post(path, data=body, headers=named) as response:
        return response.status, await response.json()


async def hook(
    session: aiohttp.ClientSession, body: bytes, *, at: float = NOW, secret: str = SECRET
) -> tuple[int, Any]:
    stamp = str(int(at))
    return await post(
        session, "/jobs", body, X_Timestamp=stamp, X_Signature=sign(secret, stamp, body)
    )


async def test_jobs_are_listed_and_shown(port: JobPort) -> None:
    await fill(port)
    async with port.serving() as session:
        _, everything = await get(session, "/api/jobs")
        _, queued = await get(session, "/api/jobs?state=queued&limit=1")
        _, one = await get(session, "/api/jobs/s0-hls")
        assert (await get(session, "/api/jobs/nobody"))[0] == 404
        for query in ("state=odd", "limit=0", "limit=1001", "limit=x"):
            assert (await get(session, f"/api/jobs?{query}"))[0] == 400
    assert everything["total"] == 4
    states = [job["state"] for job in everything["jobs"]]
    assert states == ["in_progress", "queued", "queued", "failed"]
    assert (len(queued["jobs"]), queued["total"]) == (1, 2)
    assert (one["input"], one["progress"]["percent"], one["step"]) == ("s3://b/0.mp4", 42, "encode")
    assert not {"lane", "fence"} & one.keys()


async def test_peek_and_metrics_tell_how_the_queue_stands(port: JobPort) -> None:
    async with port.serving() as session:
        _, empty = await get(session, "/jobs/peek")
        assert (empty["depth"], empty["running"], empty["oldest_seconds"]) == (0, 0, 0)
        await fill(port)
        _, peek = await get(session, "/jobs/peek")
        metrics.job_queue_depth.labels(JobKind.HLS).set(99)  # what was true long ago
        async with session.get("/metrics") as response:
            text = await response.text()
    assert (peek["depth"], peek["running"]) == (2, 1)
    assert peek["slots_in_use"] == {"gpu": 0, "cpu": 1, "none": 0}
    assert peek["states"] == {"queued": 2, "in_progress": 1, "complete": 0, "failed": 1}
    hls = peek["kinds"]["hls"]
    assert (hls["depth"], hls["ready"], hls["waiting"], hls["running"]) == (2, 2, 0, 1)
    assert hls["oldest_seconds"] > 0
    assert 'cefmp4_job_queue_depth{kind="hls"} 2.0' in text
    assert 'cefmp4_job_workers{kind="hls"} 1.0' in text
    assert 'cefmp4_job_queue_age_seconds{kind="hls"} 0.0\n' not in text


@pytest.mark.parametrize("is_silent", [False, True])
async def test_a_temporal_that_is_away_holds_nobody_up(is_silent: bool) -> None:
    """Nobody listens there, or somebody who says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        place = f"127.0.0.1:{listener.getsockname()[1] if is_silent else 1}"
        settings = Settings(temporal_address=place, temporal_codec_key=SecretStr("x" * 16))
        metrics.job_queue_depth.labels(JobKind.HLS).set(99)
        async with JobPort(DeskOnDemand(settings)).serving() as session:
            await get(session, "/api/jobs/warm-hls")  # loads the client
            for path in ("/metrics", "/api/jobs", "/api/jobs/s1-hls", "/jobs/peek"):
                started = time.monotonic()
                async with session.get(path) as response:
                    status, text = response.status, await response.text()
                assert time.monotonic() - started < 3.5
                if path == "/metrics":
                    assert status == 200
                    assert "cefmp4_job_queue_depth{" not in text
                else:
                    assert (status, json.loads(text)) == (
                        503,
                        {"error": f"Temporal does not answer at {place} (check TEMPORAL_ADDRESS)"},
                    )


async def test_jobs_are_cancelled_and_retried(port: JobPort) -> None:
    await port.desk.submit(spec(1, waits="1"))
    async with port.serving() as session:
        assert await post(session, "/api/jobs/s1-hls/cancel") == (200, {"done": True})
        await in_state(port.desk, "s1-hls", JobState.FAILED)
        assert (await post(session, "/api/jobs/s1-hls/cancel"))[0] == 409
        assert await post(session, "/api/jobs/s1-hls/retry") == (200, {"done": True})
        assert (await post(session, "/api/jobs/s1-hls/retry"))[0] == 409
        assert (await post(session, "/api/jobs/nobody/retry"))[0] == 404


async def test_changes_are_guarded_as_those_of_streams(port: JobPort) -> None:
    await port.desk.submit(spec(1, waits="1"))
    path = "/api/jobs/s1-hls/cancel"
    async with port.serving() as session:
        assert (await post(session, path, Origin="http://evil.example"))[0] == 403
        assert (await post(session, path, Host="evil.example"))[0] == 403
    async with port.serving("0.0.0.0") as session:
        assert (await post(session, path))[0] == 403
    async with port.serving("0.0.0.0", "sixteen characters") as session:
        assert (await post(session, path))[0] == 401
        assert (await post(session, path, Authorization="Bearer sixteen characters"))[0] == 200


async def test_a_signed_request_makes_a_job_once(port: JobPort) -> None:
    async with port.serving("0.0.0.0") as session:  # the signature is enough
        body = b'{"key": "a/b.mp4"}'
        status, first = await hook(session, body)
        assert (status, first["is_new"]) == (202, True)
        assert await hook(session, body) == (202, {"id": first["id"], "is_new": False})
        named = b'{"id": "order 7/../x", "bucket": "other", "key": "c.mp4", "kind": "hls"}'
        _, second = await hook(session, named)
        other = b'{"id": "order 7/../x", "key": "another.mp4"}'
        assert await hook(session, other) == (202, {"id": second["id"], "is_new": False})
    job = await port.desk.get(first["id"])
    assert job.spec.input.name == "s3://bucket/a/b.mp4"
    assert job.spec.max_attempts == 5
    job = await port.desk.get(second["id"])
    assert job.spec.input.name == "s3://other/c.mp4"
    assert job.spec.subject.isalnum()  # it becomes part of keys


async def test_a_wrong_signature_is_refused(port: JobPort) -> None:
    body = b'{"key": "a.mp4"}'
    stamp = str(int(NOW))
    right = sign(SECRET, stamp, body)
    async with port.serving() as session:
        assert (await hook(session, body, secret="another secret"))[0] == 401
        for headers in (
            {},
            {"X_Signature": right},
            {"X_Timestamp": stamp},
            {"X_Timestamp": stamp, "X_Signature": ""},
            {"X_Timestamp": stamp, "X_Signature": right[:-1]},
            {"X_Timestamp": stamp, "X_Signature": "\xe4" * 64},
            {"X_Timestamp": str(int(NOW) + 1), "X_Signature": right},
        ):
            assert (await post(session, "/jobs", body, **headers))[0] == 401
        changed = body.replace(b"a.mp4", b"b.mp4")
        signed = {"X_Timestamp": stamp, "X_Signature": right}
        assert (await post(session, "/jobs", changed, **signed))[0] == 401
        assert (await post(session, "/jobs", body, **signed))[0] == 202
    assert sum((await port.desk.counts()).values()) == 1


@pytest.mark.parametrize(("late_s", "status"), [(299, 202), (-299, 202), (301, 401), (-301, 401)])
async def test_an_old_request_is_refused(port: JobPort, late_s: float, status: int) -> None:
    port.now = NOW + late_s
    async with port.serving() as session:
        assert (await hook(session, b'{"key": "a.mp4"}'))[0] == status


@pytest.mark.parametrize("stamp", ["", "soon", "-1", "1e9", "9" * 5000, "nan"])
async def test_a_signed_timestamp_must_be_one(port: JobPort, stamp: str) -> None:
    body = b'{"key": "a.mp4"}'
    headers = {"X_Timestamp": stamp, "X_Signature": sign(SECRET, stamp, body)}
    async with port.serving() as session:
        assert (await post(session, "/jobs", body, **headers))[0] == 401


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b"[" * 50_000,
        b"{}",
        b'{"key": ""}',
        b'{"key": 7}',
        b'{"key": "\\ud800"}',
        json.dumps({"key": "x" * 1025}).encode(),
        b'{"key": "a", "bucket": "../x"}',
        b'{"key": "a", "bucket": ["b"]}',
        b'{"key": "a", "kind": "odd"}',
        b'{"key": "a", "kind": ["hls"]}',
        b'{"key": "a", "id": 7}',
        b'{"key": "a", "id": "\\ud800"}',
        json.dumps({"key": "a", "id": "x" * 257}).encode(),
    ],
)
async def test_a_signed_body_must_make_sense(port: JobPort, body: bytes) -> None:
    async with port.serving() as session:
        assert (await hook(session, body))[0] == 400
        large = b'{"key": "a", "more": "' + b"x" * (1 << 17) + b'"}'
        assert (await hook(session, large))[0] == 413


async def test_a_kind_that_no_worker_does_is_refused(port: JobPort) -> None:
    async with port.serving() as session:
        status, answer = await hook(session, b'{"key": "a", "kind": "analysis"}')
    assert status == 400
    assert "no worker does this kind of job: kind must be hls" in json.dumps(answer)
    assert await port.desk.latest(JobState, 10) == []


async def test_without_a_secret_nothing_is_taken(port: JobPort) -> None:
    port.secret = None
    async with port.serving() as session:
        assert (await hook(session, b'{"key": "a"}'))[0] == 503
