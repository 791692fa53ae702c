"""What is sent to WEBHOOK_URL, to a receiver that listens, is away, slow, or wants it elsewhere; by
workers on a real Temporal."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from pydantic import SecretStr
from tests.support.callback_receiver import SECRET, Receiver
from tests.support.job_worker import Workshop, workshop
from tests.support.ports import free_port
from tests.support.pretence import Pretence, in_state, pretending, until
from tests.support.servers import S3Place, SwiftServer
from tests.support.service import open_site
from tests.support.temporal_server import CODEC_KEY, JobPlace
from tests.support.tls import tls_front
from tests.support.worker_command import running, until_ready

from cefmp4 import metrics
from cefmp4.app.engine import DeskOnDemand
from cefmp4.config.settings import Settings
from cefmp4.config.webhooks import WebhookSettings
from cefmp4.errors import RefusedError, ServerUnreachableError, TransientError
from cefmp4.jobs import flow
from cefmp4.jobs.callbacks import sender as sender_module
from cefmp4.jobs.callbacks.messages import message_of_end, spec_of_stored
from cefmp4.jobs.callbacks.sender import Sender, open_sender
from cefmp4.jobs.webhook_signatures import headers_for
from cefmp4.model.job import (
    CALLBACK,
    MOST_TELLING_FIRST,
    JobEnd,
    JobInput,
    JobKind,
    JobSpec,
    JobState,
)
from cefmp4.model.stream import FileStamp, Stream, StreamState
from cefmp4.temporal.worker import working
from cefmp4.web.listener import listening
from cefmp4.web.webhook import Webhook

__all__ = ["workshop"]

pytestmark = pytest.mark.integration

SPEC = JobSpec(subject="s", kind=JobKind.HLS, input=JobInput(bucket="b", key="k"))
END = JobEnd(spec=SPEC, state=JobState.COMPLETE, at=1_700_000_000.0, attempts=1)
MESSAGE = message_of_end(END)
STREAM = Stream(
    id="20260101T000000Z-0badcafe",
    relpath="r.mp4",
    part_base=1,
    state=StreamState.DESCRIBED,
    key="streams/r.mp4",
    stamp=FileStamp(1, 1, 1, 1),
    playable=False,
    completed_at=1_700_000_000.0,
)


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


def settings_for(receiver: Receiver, **changes: object) -> WebhookSettings:
    given = {"webhook_url": SecretStr(receiver.url), "webhook_secret": SecretStr(SECRET)}
    return WebhookSettings.model_validate(given | changes)


@pytest_asyncio.fixture
async def sender(receiver: Receiver) -> AsyncIterator[Sender]:
    async with open_sender(settings_for(receiver)) as opened:
        assert opened is not None
        yield opened


# One message.


async def test_a_message_is_signed_with_the_first_secret(receiver: Receiver) -> None:
    rotated = settings_for(receiver, webhook_secret=SecretStr(f"{SECRET},an older secret of ours"))
    async with receiver.listening(), open_sender(rotated) as sender:
        assert sender is not None
        assert await sender.send(MESSAGE) == 204
    (heard,) = receiver.heard
    assert (heard.message_id, heard.body["type"]) == (MESSAGE.id, "job.completed")
    assert heard.headers["Content-Type"] == "application/json"
    assert receiver.unsigned == 0


async def test_the_answer_is_not_read(receiver: Receiver, sender: Sender) -> None:
    receiver.answers = [200]  # with a megabyte
    async with receiver.listening():
        assert await sender.send(MESSAGE) == 200


@pytest.mark.parametrize("status", [300, 301, 302, 307, 308, 400, 401, 404, 429, 500, 503])
async def test_any_other_answer_is_a_reason_to_try_again(
    receiver: Receiver, sender: Sender, status: int
) -> None:
    receiver.answers = [status]
    place = f"http://127.0.0.1:{receiver.port}"
    async with receiver.listening():
        with pytest.raises(TransientError, match=rf"^{place} answered {status} ") as caught:
            await sender.send(MESSAGE)
        assert await sender.send(MESSAGE) == 204
    assert "hidden" not in str(caught.value)
    assert len(set(receiver.ids)) == 1


async def test_who_is_gone_is_let_alone(receiver: Receiver, sender: Sender) -> None:
    receiver.answers = [410]
    gone = metrics.callbacks.labels("job.completed", "gone")
    before = gone._value.get()
    async with receiver.listening():
        await sender.report(END)
    assert gone._value.get() == before + 1


async def test_who_is_away_or_silent_is_unreachable(
    receiver: Receiver, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ServerUnreachableError, match="does not answer: ") as caught:
        await sender.send(MESSAGE)
    assert "hidden" not in str(caught.value)
    monkeypatch.setattr(sender_module, "ANSWER_S", 0.3)
    async with receiver.listening():
        receiver.goes_on.clear()
        with pytest.raises(ServerUnreachableError, match=r"did not answer within 0\.3 s"):
            await sender.send(MESSAGE)
        receiver.goes_on.set()


async def test_who_talks_nonsense_is_unreachable(receiver: Receiver, sender: Sender) -> None:
    async def babble(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n" + b"X" * 100_000)
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", receiver.port)
    async with server:
        with pytest.raises(ServerUnreachableError, match="does not answer"):
            await sender.send(MESSAGE)


async def test_a_certificate_that_nobody_trusts_is_no_receiver(
    receiver: Receiver, tmp_path: Path
) -> None:
    """And a receiver without TLS is none for https."""
    plain = f"https://127.0.0.1:{receiver.port}/in"
    async with receiver.listening(), tls_front(receiver.url, tmp_path) as (untrusted, _):
        for url in (plain, f"{untrusted}/in"):
            async with open_sender(settings_for(receiver, webhook_url=SecretStr(url))) as sender:
                assert sender is not None
                with pytest.raises(ServerUnreachableError, match="no TLS that is trusted here"):
                    await sender.send(MESSAGE)
    assert receiver.heard == []


async def test_a_password_in_the_address_is_sent_and_not_shown(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    url = receiver.url.replace("http://", "http://me:hidden@")
    async with open_sender(settings_for(receiver, webhook_url=SecretStr(url))) as sender:
        assert sender is not None
        assert "hidden" not in repr(sender)
        with pytest.raises(ServerUnreachableError) as caught:
            await sender.send(MESSAGE)
        assert "hidden" not in str(caught.value)
        async with receiver.listening():
            await sender.send(MESSAGE)
    assert receiver.heard[0].headers["Authorization"].startswith("Basic ")


# By the engine.


@dataclass
class Works:
    """Workers of one Temporal that call back, and the desk as commands and services have it."""

    place: JobPlace
    receiver: Receiver
    folder: Path
    pretence: Pretence

    @property
    def settings(self) -> Settings:
        return Settings(
            webhook_url=SecretStr(self.receiver.url),
            webhook_secret=SecretStr(SECRET),
            s3_bucket_name="bucket",
            **self.place.settings,
        )

    @property
    def desk(self) -> DeskOnDemand:
        return DeskOnDemand(self.settings)

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        client = await self.place.connect()
        async with open_sender(self.settings) as sender:
            assert sender is not None
            with pretending(self.folder / "work", self.pretence) as plain:
                host = replace(
                    plain,
                    procedures={**plain.procedures, JobKind.CALLBACK: sender.procedure},
                    reporters={CALLBACK: sender.report},
                )
                async with working(client, host, drain_s=0):
                    yield

    @asynccontextmanager
    async def taking(self, desk: DeskOnDemand) -> AsyncIterator[aiohttp.ClientSession]:
        """Orders, over HTTP."""
        routes = Webhook(self.settings, desk).routes()
        async with (
            listening(self.settings, 0, routes) as port,
            aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
        ):
            yield session


@pytest.fixture
def works(
    job_place: JobPlace, receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Works:
    monkeypatch.setattr(flow, "FIRST_PAUSE_S", 0.2)
    return Works(job_place, receiver, tmp_path, Pretence())


async def order(session: aiohttp.ClientSession, number: int) -> dict[str, Any]:
    body = json.dumps({"key": f"{number}.mp4"}).encode()
    headers = headers_for(SECRET, f"msg_{number}", time.time(), body)
    async with session.post("/jobs", data=body, headers=headers) as response:
        assert response.status == 202, await response.text()
        found: dict[str, Any] = await response.json()
        return found


async def test_from_the_webhook_to_the_callback(works: Works) -> None:
    """The whole way, with a receiver that fails three times first."""
    works.receiver.answers = [500, 302, 503]
    desk = works.desk
    async with works.receiver.listening(), works.working(), works.taking(desk) as session:
        made = await order(session, 1)
        job = await in_state(desk, made["id"], JobState.COMPLETE)
        await until(lambda: _has_told(desk, made["id"]))
        headers = headers_for(SECRET, "msg_1", time.time(), b"")
        async with session.get(made["status_url"], headers=headers) as response:
            assert (await response.json())["state"] == "complete"
    assert job.spec.tells == (CALLBACK,)
    assert len(works.receiver.heard) == 4
    assert len(set(works.receiver.ids)) == 1
    assert works.receiver.unsigned == 0
    told = works.receiver.heard[-1].body
    assert (told["type"], told["data"]["job_id"]) == ("job.completed", made["id"])
    assert (told["data"]["ref"], told["data"]["result"]) == ("msg_1", job.result)
    assert told["data"]["input"]["key"] == "1.mp4"


async def test_a_failure_and_a_second_try_are_told_each_for_itself(works: Works) -> None:
    desk, bad = works.desk, replace(SPEC, params={"bad": "no video in it"})
    async with works.receiver.listening(), works.working():
        await desk.submit(bad)
        await in_state(desk, bad.id, JobState.FAILED)
        await until(lambda: _has_heard(works.receiver, 1))
        await until(lambda: _is_begun_again(desk, bad.id))
        await until(lambda: _has_heard(works.receiver, 2))
    first, second = works.receiver.heard
    assert {one.body["type"] for one in (first, second)} == {"job.failed"}
    assert first.body["data"]["error"] == "no video in it"
    assert first.message_id != second.message_id


async def test_of_a_stored_recording_is_told_until_it_is_heard(works: Works) -> None:
    """Its job is one of its own: it counts to no other, and nothing is told of its end."""
    desk = works.desk
    spec = spec_of_stored(STREAM, bucket="films", watch_dir="/w")
    async with works.working():
        assert await desk.submit(spec)
        assert not await desk.submit(spec)

        async def waits() -> bool:
            job = await desk.get(spec.id)
            return bool(job.error) and job.due_at > 0

        await until(waits)
        (job,) = await desk.latest(MOST_TELLING_FIRST, 9)
        assert (job.id, job.kind) == (f"{STREAM.id}-callback", "callback")
        assert f"http://127.0.0.1:{works.receiver.port} does not answer" in job.error
        assert "hidden" not in job.error
        assert (await desk.queue(JobKind.HLS)).depth == 0
        assert sum((await desk.counts(JobKind.HLS)).values()) == 0
        assert await desk.latest(MOST_TELLING_FIRST, 9, JobKind.HLS) == []
        assert (await desk.counts())[JobState.QUEUED] == 1
        async with works.receiver.listening():
            job = await in_state(desk, spec.id, JobState.COMPLETE)
    assert (job.result, job.spec.tells) == ({"answered": 204}, ())
    (heard,) = works.receiver.heard
    assert (heard.body["type"], heard.body["data"]["stream_id"]) == ("recording.stored", STREAM.id)


async def test_who_is_gone_ends_the_telling(works: Works) -> None:
    works.receiver.answers = [410]
    desk = works.desk
    async with works.receiver.listening(), works.working():
        await desk.submit(spec := spec_of_stored(STREAM, bucket="films", watch_dir="/w"))
        job = await in_state(desk, spec.id, JobState.COMPLETE)
    assert job.result == {"answered": 410}
    assert len(works.receiver.heard) == 1


@pytest.mark.timeout(300)
@pytest.mark.parametrize("count", [200, pytest.param(1000, marks=pytest.mark.long)])
async def test_orders_that_two_senders_send_are_a_job_each(works: Works, count: int) -> None:
    desk, numbers = works.desk, list(range(count))
    answers: list[dict[str, Any]] = []

    async def send(session: aiohttp.ClientSession, some: list[int]) -> None:
        for number in some:
            answers.append(await order(session, number))

    async with works.taking(desk) as session:
        halves = numbers[::2], numbers[1::2]
        senders = [(*halves[0], *halves[1]), (*halves[1], *halves[0])]
        async with asyncio.TaskGroup() as group:
            for mine in senders:
                for start in range(4):
                    group.create_task(send(session, list(mine[start::4])))
    assert len({answer["id"] for answer in answers}) == count
    assert [answer["is_new"] for answer in answers].count(True) == count

    async def are_counted() -> bool:
        return (await desk.counts())[JobState.QUEUED] == count

    await until(are_counted)


# A worker as a process.


async def test_a_worker_that_dies_before_the_answer_is_followed_by_one_that_says_the_same(
    tmp_path: Path, s3_server: S3Place, workshop: Workshop, receiver: Receiver
) -> None:
    """Under the same id, so that the receiver knows what it has heard."""
    spec = JobSpec(
        subject="gone",
        kind=JobKind.HLS,
        input=JobInput(path="/in/nothing.mp4"),
        tells=(CALLBACK,),
    )
    stored = spec_of_stored(STREAM, bucket="films", watch_dir="/w")
    changes = {
        "WEBHOOK_URL": receiver.url,
        "WEBHOOK_SECRET": SECRET,
        "S3_BUCKET_NAME": await s3_server.new_bucket(),
    }
    async with receiver.listening():
        receiver.goes_on.clear()
        async with running(tmp_path, s3_server, workshop, free_port(), **changes) as (process, _):
            await workshop.desk.submit(spec)
            await workshop.desk.submit(stored)
            await until(lambda: _has_heard_of(receiver, "job.failed", "recording.stored"))
            process.kill()
            await process.wait()
        receiver.goes_on.set()
        async with running(tmp_path, s3_server, workshop, free_port(), **changes):
            assert (await workshop.ended(stored.id)).is_complete
            await until(lambda: _has_heard_of(receiver, *["job.failed"] * 2))
    assert (await workshop.desk.get(spec.id)).has_failed
    for name in ("job.failed", "recording.stored"):
        heard = receiver.of_type(name)
        assert len(heard) >= 2
        assert len({one.message_id for one in heard}) == 1
        assert all(one.body == heard[0].body for one in heard)
    assert len(set(receiver.ids)) == 2


async def test_a_worker_of_webhooks_answers_them_on_their_port(
    tmp_path: Path, s3_server: S3Place, workshop: Workshop
) -> None:
    port, hooks = free_port(), free_port()
    changes = {
        "JOB_SOURCE_TYPE": "webhook",
        "WEBHOOK_PORT": str(hooks),
        "WEBHOOK_SECRET": SECRET,
    }
    async with (
        running(tmp_path, s3_server, workshop, port, **changes) as (process, log),
        aiohttp.ClientSession(f"http://127.0.0.1:{hooks}") as session,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as other,
    ):
        await until_ready(port, process)
        made = await order(session, 1)
        await workshop.ended(made["id"])
        for client, path in (
            (session, "/metrics"),
            (session, "/stats"),
            (other, made["status_url"]),
        ):
            async with client.get(path) as response:
                assert response.status == 404, path
        async with other.get("/stats") as response:
            sources = (await response.json())["jobs"]["sources"]
        webhook = sources["webhook"]
        assert (webhook["begun"], webhook["success_rate"], webhook["rate_of"]) == (1, 0.0, 1)
        assert SECRET not in await asyncio.to_thread(log.read_text)


async def test_the_service_has_every_recording_told_of(
    works: Works, s3_server: SwiftServer, tmp_path: Path
) -> None:
    """Where nothing else is made of recordings, and of what cannot be played: at once, or as soon
    as somebody listens again, over a restart of the service."""
    settings = works.settings
    changes = {
        "TEMPORAL_ADDRESS": works.place.address,
        "TEMPORAL_NAMESPACE": works.place.namespace,
        "TEMPORAL_CODEC_KEY": CODEC_KEY.decode(),
        "WEBHOOK_URL": settings.webhook_address,
        "WEBHOOK_SECRET": SECRET,
    }
    async with open_site(s3_server, tmp_path, **changes) as site, works.working():
        (site.watched / "first.mp4").write_bytes(b"no film at all")
        await site.service.start()
        assert await site.described(["first.mp4"], 30) == set()
        async with works.receiver.listening():
            (site.watched / "second.mp4").write_bytes(b"nor this")
            await site.service.stop()
            await site.service.start()
            assert await site.described(["second.mp4"], 30) == set()
            await until(lambda: _has_heard(works.receiver, 2))
        held = {name: await site.held(name) for name in ("first.mp4", "second.mp4")}
        assert {one.state for one in (await site.streams()).values()} == {StreamState.HANDED_OVER}
        assert site.errors() == []
        log = site.service.log.read_text()
    assert SECRET not in log
    assert "hidden" not in log
    told = {one.body["data"]["path"]: one.body["data"] for one in works.receiver.heard}
    assert told.keys() == held.keys()
    for name, one in held.items():
        assert told[name]["stream_id"] == one.stream.id
        assert (told[name]["sha256"], told[name]["crc64nvme"]) == (one.sha256, one.crc64)
        assert (told[name]["size"], told[name]["etag"]) == (one.size, one.stream.etag)
        assert told[name]["metadata_key"] == f"{one.stream.key}.metadata.json"
        assert told[name]["playable"] is False


async def _has_told(desk: DeskOnDemand, job_id: str) -> bool:
    return not (await desk.get(job_id)).is_telling


async def _has_heard(receiver: Receiver, count: int) -> bool:
    return len(receiver.heard) >= count


async def _has_heard_of(receiver: Receiver, *names: str) -> bool:
    return not Counter(names) - Counter(one.body["type"] for one in receiver.heard)


async def _is_begun_again(desk: DeskOnDemand, job_id: str) -> bool:
    try:
        await desk.retry(job_id)
    except RefusedError:
        return False  # it is at its very end
    return True
