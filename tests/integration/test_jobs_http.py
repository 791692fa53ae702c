"""Jobs over HTTP: the API, the queue's figures and the signed webhook, on an engine in memory."""

import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest
import pytest_asyncio
from pydantic import SecretStr
from tests.support.memory_engine import MemoryEngine
from tests.support.ports import free_port
from tests.support.pretence import Pretence, in_state, pretending, with_progress

from cefmp4 import metrics
from cefmp4.app.engine import DeskOnDemand, NoJobs
from cefmp4.config.settings import Settings
from cefmp4.errors import ServerUnreachableError, SettingsError
from cefmp4.jobs.overview import measure_queues
from cefmp4.jobs.webhook_signatures import headers_for, sign, sign_hex
from cefmp4.model.job import JobInput, JobKind, JobSpec, JobState
from cefmp4.ports.jobs import JobDesk
from cefmp4.web.api import JobApi
from cefmp4.web.listener import listening
from cefmp4.web.probes import Health, Probes
from cefmp4.web.webhook import Webhook, taking_webhooks

pytestmark = pytest.mark.integration

SECRET = "a secret that nobody guesses"
NOW = 1_700_000_000.0


@dataclass
class JobPort:
    """The routes as `app` puts them together, with a clock of the test's own."""

    desk: JobDesk
    secret: str | None = SECRET
    now: float = NOW
    most_queued: int = 10_000
    own_port: int | None = None  # of the webhook

    @asynccontextmanager
    async def serving(
        self, host: str = "127.0.0.1", token: str | None = None
    ) -> AsyncIterator[aiohttp.ClientSession]:
        settings = Settings(
            webhook_secret=SecretStr(self.secret) if self.secret else None,
            s3_bucket_name="bucket",
            webhook_max_queued=self.most_queued,
            webhook_port=self.own_port,
            worker_max_attempts=5,
            http_host=host,
            api_token=SecretStr(token) if token else None,
        )
        webhook = Webhook(settings, self.desk, clock=lambda: self.now)
        routes = [
            *Probes(Health, partial(measure_queues, self.desk)).routes(),
            *JobApi(self.desk).routes(),
            *webhook.routes(),
        ]
        async with (
            listening(settings, 0, routes) as port,
            taking_webhooks(settings, webhook),
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
        session, "/jobs", body, X_Timestamp=stamp, X_Signature=sign_hex(secret, stamp, body)
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
        assert first["status_url"] == f"/jobs/{first['id']}"
        assert await hook(session, body) == (202, first | {"is_new": False})
        named = b'{"id": "order 7/../x", "bucket": "other", "key": "c.mp4", "kind": "hls"}'
        _, second = await hook(session, named)
        other = b'{"id": "order 7/../x", "key": "another.mp4"}'
        assert await hook(session, other) == (202, second | {"is_new": False})
    job = await port.desk.get(first["id"])
    assert job.spec.input.name == "s3://bucket/a/b.mp4"
    assert job.spec.max_attempts == 5
    job = await port.desk.get(second["id"])
    assert job.spec.input.name == "s3://other/c.mp4"
    assert job.spec.subject.isalnum()  # it becomes part of keys


async def test_a_wrong_signature_is_refused(port: JobPort) -> None:
    body = b'{"key": "a.mp4"}'
    stamp = str(int(NOW))
    right = sign_hex(SECRET, stamp, body)
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
    headers = {"X_Timestamp": stamp, "X_Signature": sign_hex(SECRET, stamp, body)}
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
        status, _, headers = await ordered(session, b'{"key": "a"}')
        assert (status, headers["Retry-After"]) == (503, "30")
        assert (await asked(session, "s1-hls", "m"))[0] == 503


# Standard Webhooks.

OTHER = "whsec_c2l4dGVlbiBjaGFyYWN0ZXJz"


async def ordered(
    session: aiohttp.ClientSession,
    body: bytes,
    *,
    message_id: str = "msg_1",
    at: float = NOW,
    secret: str = SECRET,
    url: str = "/jobs",
    **headers: str,
) -> tuple[int, Any, Any]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    signed = headers_for(secret, message_id, at, body) | named
    async with session.post(url, data=body, headers=signed) as response:
        return response.status, await response.json(), response.headers


async def asked(
    session: aiohttp.ClientSession,
    job_id: str,
    message_id: str,
    *,
    at: float = NOW,
    secret: str = SECRET,
    url: str = "",
) -> tuple[int, Any]:
    headers = headers_for(secret, message_id, at, b"")
    async with session.get(f"{url}/jobs/{job_id}", headers=headers) as response:
        return response.status, await response.json()


async def test_a_message_makes_one_job_whatever_comes_under_its_id_later(port: JobPort) -> None:
    async with port.serving("0.0.0.0") as session:
        status, first, headers = await ordered(session, b'{"key": "a/b.mp4"}')
        assert (status, first["is_new"]) == (202, True)
        assert headers["Location"] == first["status_url"] == f"/jobs/{first['id']}"
        again = first | {"is_new": False}
        for body in (b'{"key": "a/b.mp4"}', b'{"key": "other.mp4", "bucket": "elsewhere"}'):
            assert (await ordered(session, body, at=NOW + 60))[:2] == (202, again)
        _, second, _ = await ordered(session, b'{"key": "a/b.mp4"}', message_id="msg_2")
        assert second["is_new"]
        own = b'{"id": "order 7", "key": "a/b.mp4"}'
        _, third, _ = await ordered(session, own, message_id="msg_3")
        assert (await ordered(session, own, message_id="msg_4"))[1] == third | {"is_new": False}
        assert (await hook(session, own))[1] == third | {"is_new": False}
    assert len({first["id"], second["id"], third["id"]}) == 3
    job = await port.desk.get(first["id"])
    assert (job.spec.input.name, job.spec.ref) == ("s3://bucket/a/b.mp4", "msg_1")
    assert (await port.desk.get(third["id"])).spec.ref == "order 7"


async def test_any_of_the_secrets_will_do(port: JobPort) -> None:
    port.secret = f" {OTHER} , {SECRET},"
    body = b'{"key": "a.mp4"}'
    async with port.serving() as session:
        assert (await ordered(session, body, secret=SECRET))[0] == 202
        assert (await ordered(session, body, secret=OTHER))[0] == 202
        assert (await hook(session, body))[0] == 202
        assert (await ordered(session, body, secret="a secret of long ago"))[0] == 401
        assert (await ordered(session, body, secret=f"{SECRET},{OTHER}"))[0] == 401


async def test_what_was_tampered_with_is_refused(port: JobPort) -> None:
    body, stamp = b'{"key": "a.mp4"}', str(int(NOW))
    right = sign(SECRET, "msg_1", stamp, body)
    foreign = sign(OTHER, "msg_1", stamp, body)
    async with port.serving() as session:
        wrong: tuple[dict[str, Any], ...] = (
            {"webhook_id": "msg_2"},
            {"webhook_id": ""},
            {"webhook_timestamp": str(int(NOW) + 1)},
            {"webhook_timestamp": ""},
            {"webhook_signature": ""},
            {"webhook_signature": right[:-2]},
            {"webhook_signature": right.removeprefix("v1,")},
            {"webhook_signature": right.replace("v1,", "v1a,")},
            {"webhook_signature": right.swapcase()},
            {"webhook_signature": "v1," + "\xe4" * 44},
            {"webhook_signature": foreign},
            {"webhook_signature": right.replace("v1,", "v1, ")},
            # The older pair is right, and does not count beside a signature.
            {"webhook_signature": foreign, "X_Timestamp": stamp,
             "X_Signature": sign_hex(SECRET, stamp, body)},
        )  # fmt: skip
        for changes in wrong:
            assert (await ordered(session, body, **changes))[0] == 401, changes
        several = f"v1a,AAAA {foreign} junk {right}"
        assert (await ordered(session, body, webhook_signature=several))[0] == 202
        changed = headers_for(SECRET, "msg_1", NOW, body)
        async with session.post("/jobs", data=b'{"key": "b.mp4"}', headers=changed) as response:
            assert response.status == 401
        async with session.post(
            "/jobs", data=body, headers={**changed, "webhook-id": "msg_1.1"}
        ) as r:
            assert r.status == 401
    assert sum((await port.desk.counts()).values()) == 1


@pytest.mark.parametrize(("late_s", "status"), [(299, 202), (-299, 202), (301, 401), (-301, 401)])
async def test_an_old_message_is_refused(port: JobPort, late_s: float, status: int) -> None:
    port.now = NOW + late_s
    async with port.serving() as session:
        assert (await ordered(session, b'{"key": "a.mp4"}'))[0] == status


@pytest.mark.parametrize("message_id", ["x" * 257, "ä"])
async def test_an_odd_message_id_is_refused_with_its_reason(port: JobPort, message_id: str) -> None:
    async with port.serving() as session:
        status, answer, _ = await ordered(session, b'{"key": "a.mp4"}', message_id=message_id)
        assert (status, answer) == (
            400,
            {"error": "webhook-id must be at most 256 characters of ASCII"},
        )


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 202),
        ("application/json; charset=utf-8", 202),
        ("application/cloudevents+json", 202),
        ("text/plain", 202),
        ("application/x-www-form-urlencoded", 202),  # curl -d
        ("application/xml", 415),
        ("multipart/form-data; boundary=x", 415),
        ("image/jpeg", 415),
    ],
)
async def test_what_is_clearly_no_json_is_refused(
    port: JobPort, content_type: str, status: int
) -> None:
    async with port.serving() as session:
        answer = await ordered(session, b'{"key": "a.mp4"}', Content_Type=content_type)
        assert answer[0] == status


async def test_a_sender_sees_how_its_job_is(port: JobPort) -> None:
    async with port.serving("0.0.0.0") as session:  # without a token nobody else sees anything
        body = b'{"key": "a.mp4"}'
        _, made, _ = await ordered(session, body)
        assert (await asked(session, made["id"], "msg_1"))[0] == 200
        await in_state(port.desk, made["id"], JobState.COMPLETE)
        _, told = await asked(session, made["id"], "msg_1")
        assert (told["state"], told["percent"], told["error"]) == ("complete", 100, "")
        assert (told["id"], told["kind"], told["attempts"]) == (made["id"], "hls", 1)
        assert told["result"]["by"]
        assert not {"input", "owner", "subject"} & told.keys()
        _, own, _ = await ordered(session, b'{"key": "b", "id": "order 7"}', message_id="msg_2")
        assert (await asked(session, own["id"], "order 7"))[0] == 200
        missing = sign("x" * 16, "msg_1", "1", b"")
        for status, answer in (
            (403, await asked(session, made["id"], "msg_2")),
            (403, await asked(session, own["id"], "msg_2")),
            (403, await asked(session, "s1-hls", "msg_1")),
            (403, await asked(session, "peek", "peek")),
            (401, await asked(session, made["id"], "msg_1", secret="x" * 16)),
            (401, await asked(session, made["id"], "msg_1", at=NOW - 301)),
        ):
            assert answer[0] == status, answer
        headers = headers_for(SECRET, "msg_1", NOW, b"") | {"webhook-signature": missing}
        async with session.get(made["status_url"], headers=headers) as response:
            assert response.status == 401
        assert (await get(session, made["status_url"]))[0] == 403
        signed = headers_for(SECRET, "msg_1", NOW, b"")
        for path in ("/jobs/peek", "/api/jobs", "/stats", "/jobs/peek/"):
            async with session.get(path, headers=signed) as response:
                assert response.status in (403, 404), path
        old = {"X-Timestamp": str(int(NOW)), "X-Signature": sign_hex(SECRET, str(int(NOW)), b"")}
        async with session.get(made["status_url"], headers=old) as response:
            assert response.status == 403


async def test_who_may_look_at_jobs_needs_no_signature(port: JobPort) -> None:
    await port.desk.submit(spec(1, waits="1"))
    await with_progress(port.desk, "s1-hls")
    async with port.serving() as session:
        status, told = await get(session, "/jobs/s1-hls")
        assert (status, told["state"], told["percent"]) == (200, "in_progress", 42)
        assert (await get(session, "/jobs/nobody"))[0] == 404
        async with session.get("/jobs/s1-hls", headers={"Host": "evil.example"}) as response:
            assert response.status == 403
        async with session.get("/jobs/s1-hls", headers={"Origin": "http://evil.example"}) as found:
            assert found.status == 403
    async with port.serving("0.0.0.0", "sixteen characters") as session:
        assert (await get(session, "/jobs/s1-hls"))[0] == 401
        token = {"Authorization": "Bearer sixteen characters"}
        async with session.get("/jobs/s1-hls", headers=token) as response:
            assert response.status == 200


class Counting:
    """A desk that says how many wait, and how often it was asked."""

    def __init__(self, desk: JobDesk, depth: int) -> None:
        self._desk, self.depth, self.asked, self.is_away = desk, depth, 0, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._desk, name)

    async def backlog(self, _kind: JobKind) -> int:
        self.asked += 1
        if self.is_away:
            raise ServerUnreachableError("Temporal does not answer")
        return self.depth


async def test_a_full_queue_asks_to_come_again(port: JobPort) -> None:
    counting = Counting(port.desk, 7)
    full = JobPort(cast(JobDesk, counting), most_queued=10)
    async with full.serving() as session:
        answers = [
            await ordered(session, b'{"key": "a.mp4"}', message_id=f"msg_{number}")
            for number in range(5)
        ]
        assert [status for status, _, _ in answers] == [202, 202, 202, 503, 503]
        assert answers[-1][2]["Retry-After"] == "30"
        assert answers[-1][1] == {"error": "10 jobs wait already (WEBHOOK_MAX_QUEUED)"}
    assert counting.asked <= 2  # once a second for all of them
    counting.depth, counting.is_away = 0, True
    async with full.serving() as session:
        status, answer, headers = await ordered(session, b'{"key": "a.mp4"}', message_id="msg_9")
        assert (status, answer) == (503, {"error": "Temporal does not answer"})
        assert headers["Retry-After"] == "30"


async def test_the_port_of_webhooks_answers_nothing_else(port: JobPort) -> None:
    port.own_port = free_port()
    own = f"http://127.0.0.1:{port.own_port}"
    async with (
        port.serving("0.0.0.0", "sixteen characters") as session,
        aiohttp.ClientSession(own) as stranger,
    ):
        _, made, _ = await ordered(stranger, b'{"key": "a.mp4"}')
        assert (await ordered(session, b'{"key": "a.mp4"}'))[1] == made | {"is_new": False}
        assert (await hook(stranger, b'{"key": "a.mp4"}'))[0] == 202
        assert (await asked(stranger, made["id"], "msg_1"))[0] == 200
        assert (await get(stranger, made["status_url"]))[0] == 401
        for path in (
            *("/", "/login", "/metrics", "/livez", "/healthz", "/stats", "/events", "/api/jobs"),
            *("/api/session", "/assets/page.js", "/watch/x", "/media/x/master.m3u8", "/jobs/"),
        ):
            assert (await get(stranger, path))[0] == 404, path
        assert (await get(stranger, "/jobs"))[0] == 405
        assert (await get(stranger, "/jobs/peek"))[0] == 401
        assert (await post(stranger, "/api/session", b'{"token": "sixteen characters"}'))[0] == 404
        assert (await post(stranger, f"/api/jobs/{made['id']}/cancel"))[0] == 404
        large = b'{"key": "a", "more": "' + b"x" * (1 << 17) + b'"}'
        assert (await ordered(stranger, large))[0] == 413


async def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        settings = Settings(webhook_port=number, webhook_secret=SecretStr(SECRET))
        with pytest.raises(SettingsError, match=f"^WEBHOOK_PORT={number}: another program"):
            async with taking_webhooks(settings, Webhook(settings, NoJobs())):
                pass
