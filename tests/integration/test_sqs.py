"""Jobs from a real queue: many, with the pollers, the queue and the engine dying or going away; and
told of by S3 itself, through each of its ways."""

import asyncio
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog
from tests.faults.redis_proxy import RedisProxy as TcpProxy
from tests.support.memory_engine import MemoryEngine
from tests.support.ports import free_port
from tests.support.pretence import Pretence, pretending, until
from tests.support.sqs_server import HIDDEN_S, KEYS, QueueUnderTest, SqsServer

from cefmp4 import metrics
from cefmp4.config.settings import Settings
from cefmp4.doctor.sqs import examine_sqs
from cefmp4.errors import ServerUnreachableError, SettingsError
from cefmp4.jobs.sources import sqs, sqs_queue
from cefmp4.jobs.sources.asked import AskedJobs
from cefmp4.jobs.sources.feeder import Feeder, feeding
from cefmp4.jobs.sources.sqs_errors import RIGHTS
from cefmp4.jobs.steps import StepContext
from cefmp4.model.diagnosis import Level
from cefmp4.model.job import JobSpec
from cefmp4.model.names import META_STREAM_ID

pytestmark = pytest.mark.integration
log = structlog.get_logger()

BUCKET = "recordings"
MANY = 1000
# Claims what there is, says so, and does nothing more.
CLAIMS = """
import asyncio, sys
from cefmp4.config.settings import Settings
from cefmp4.jobs.sources import sqs
async def main():
    settings = Settings.model_validate_json(sys.argv[1])
    async with sqs.open_source(settings) as source, source.offers(10) as offers:
        print(len(offers), file=sys.stderr, flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


@dataclass
class Works(Pretence):
    """Copies each object."""

    keys: list[str] = field(default_factory=list)

    async def make(self, context: StepContext) -> Any:
        self.keys.append(context.spec.input.key)
        context.spec.params["copy"] = "1"
        return await super().make(context)


@dataclass
class Plant:
    works: Works
    desk: MemoryEngine
    specs: list[JobSpec] = field(default_factory=list)

    @asynccontextmanager
    async def feeding(
        self, *settings: Settings, desk: Any = None
    ) -> AsyncIterator[tuple[Feeder, ...]]:
        asked = AskedJobs(bucket=BUCKET, max_attempts=2)
        taker: Any = desk or self
        async with AsyncExitStack() as stack:
            sources = [await stack.enter_async_context(sqs.open_source(one)) for one in settings]
            feeders = tuple(Feeder(source=source, desk=taker, asked=asked) for source in sources)
            async with feeding(feeders):
                yield feeders

    async def submit(self, spec: JobSpec) -> bool:
        self.specs.append(spec)
        return await self.desk.submit(spec)

    async def until_done(self, *keys: str) -> None:
        async def all_are_done() -> bool:
            return len(self.works.published) >= len(keys)

        await until(all_are_done)
        assert Counter(self.works.keys) == Counter(keys)


@pytest.fixture
async def plant(tmp_path: Path) -> AsyncIterator[Plant]:
    works = Works()
    with pretending(tmp_path / "work", works) as host:
        desk = MemoryEngine(host)
        yield Plant(works, desk)
        await desk.stop()


async def until_empty(queue: QueueUnderTest) -> None:
    async def is_empty() -> bool:
        return await queue.left() == 0

    await until(is_empty)


async def test_a_thousand_with_two_pollers_are_done_once_each(
    sqs_server: SqsServer, aws_keys: None, plant: Plant
) -> None:
    keys = [f"{number % 7}/{number}.mp4" for number in range(MANY)]
    async with sqs_server.new_queue(hidden_s=30) as queue:
        await queue.send_many([{"key": key} for key in keys])
        settings, began = queue.settings(), time.monotonic()
        async with plant.feeding(settings, settings) as feeders:
            async with asyncio.timeout(100):
                while len(plant.works.published) < MANY:  # noqa: ASYNC110  # it tells nobody
                    await asyncio.sleep(0.05)
            seconds = time.monotonic() - began
            await until_empty(queue)
    shares = [feeder.figures.begun for feeder in feeders]
    log.info("messages with two pollers", count=MANY, seconds=round(seconds, 1), shares=shares)
    assert Counter(plant.works.keys) == Counter(keys)
    assert sum(shares) == MANY
    assert min(shares) > 0


async def test_what_a_killed_poller_had_received_is_done_once(
    sqs_queue: QueueUnderTest, plant: Plant
) -> None:
    keys = [f"{number}.mp4" for number in range(10)]
    await sqs_queue.send_many([{"key": key} for key in keys])
    settings = sqs_queue.settings()
    poller = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", CLAIMS, settings.model_dump_json()),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert poller.stderr is not None
    assert int(await poller.stderr.readline()) > 0
    os.kill(poller.pid, signal.SIGKILL)
    await poller.wait()
    async with plant.feeding(settings):
        await plant.until_done(*keys)
        await until_empty(sqs_queue)


async def test_what_a_poller_had_received_when_it_was_cancelled_is_there_at_once(
    sqs_server: SqsServer, aws_keys: None
) -> None:
    async with sqs_server.new_queue(hidden_s=30) as queue:
        await queue.send_many([{"key": f"{number}.mp4"} for number in range(3)])
        received = asyncio.Event()

        async def claim() -> None:
            async with sqs.open_source(queue.settings()) as source, source.offers(10) as offers:
                assert len(offers) == 3
                received.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(claim())
        await asyncio.wait_for(received.wait(), 20)
        assert await queue.take() == []
        task.cancel()
        await asyncio.wait({task})
        assert len(await queue.take()) == 3


async def test_a_queue_that_is_away_for_a_while(
    sqs_server: SqsServer, sqs_queue: QueueUnderTest, plant: Plant
) -> None:
    proxy = TcpProxy(sqs_server.port)
    await proxy.start()
    url = sqs_queue.url.replace(str(sqs_server.port), str(proxy.port))
    up = metrics.server_up.labels("sqs")
    async with plant.feeding(sqs_queue.settings(aws_sqs_queue_url=url)) as (feeder,):
        await sqs_queue.send({"key": "before.mp4"})
        await plant.until_done("before.mp4")
        await proxy.stop()

        async def is_noticed() -> bool:
            return bool(feeder.figures.trouble)

        await until(is_noticed)
        assert "SQS did not answer" in feeder.figures.trouble
        assert up._value.get() == 0
        await sqs_queue.send({"key": "meanwhile.mp4"})
        await proxy.start()
        await plant.until_done("before.mp4", "meanwhile.mp4")

        async def is_over() -> bool:
            return not feeder.figures.trouble

        await until(is_over)
        assert up._value.get() == 1
    await until_empty(sqs_queue)
    await proxy.stop()


async def test_a_queue_that_hangs_for_a_while(
    aws_keys: None, plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqs_queue, "ANSWER_S", 1.0)
    server = SqsServer()
    await server.ready()
    try:
        async with server.new_queue() as queue, plant.feeding(queue.settings()) as (feeder,):
            server.pause()

            async def is_noticed() -> bool:
                return bool(feeder.figures.trouble)

            await until(is_noticed)
            server.resume()
            await queue.send({"key": "after.mp4"})
            await plant.until_done("after.mp4")
    finally:
        server.stop()


async def test_a_queue_that_somebody_deletes_and_makes_anew(
    sqs_server: SqsServer, aws_keys: None, plant: Plant
) -> None:
    async with sqs_server.new_queue() as queue, plant.feeding(queue.settings()) as (feeder,):
        await queue.client.delete_queue(QueueUrl=queue.url)

        async def is_noticed() -> bool:
            return "AWS_SQS_QUEUE_URL" in feeder.figures.trouble

        await until(is_noticed)
        await queue.client.create_queue(QueueName=queue.url.rpartition("/")[2])
        await queue.send({"key": "a.mp4"})
        await plant.until_done("a.mp4")


async def test_an_engine_that_is_away_drives_no_message_into_the_dead_letter_queue(
    sqs_server: SqsServer, aws_keys: None, plant: Plant
) -> None:
    tries = 0

    class Away:
        async def submit(self, spec: JobSpec) -> bool:
            nonlocal tries
            tries += 1
            if tries <= 4:
                raise ServerUnreachableError("Temporal does not answer")
            return await plant.submit(spec)

    async with with_dead_letters(sqs_server, max_receives=2) as (queue, dead):
        await queue.send({"key": "a.mp4"})
        async with plant.feeding(queue.settings(), desk=Away()):
            await plant.until_done("a.mp4")
            await until_empty(queue)
        assert tries == 5
        assert await dead.left() == 0


async def test_a_poison_message_lands_in_the_dead_letter_queue(
    sqs_server: SqsServer, aws_keys: None, plant: Plant
) -> None:
    async with with_dead_letters(sqs_server, max_receives=2) as (queue, dead):
        await queue.send("{")
        await queue.send({"key": "a.mp4"})
        async with plant.feeding(queue.settings()) as (feeder,):
            await plant.until_done("a.mp4")
            await until_empty(queue)

            async def is_there() -> bool:
                return await dead.left() == 1

            await until(is_there)
            assert feeder.figures.refused == 2


async def test_without_a_redrive_policy_a_poison_message_holds_nobody_up(
    sqs_queue: QueueUnderTest, plant: Plant
) -> None:
    await sqs_queue.send("{")
    async with plant.feeding(sqs_queue.settings(sqs_max_messages=1)) as (feeder,):

        async def is_refused_twice() -> bool:
            return feeder.figures.refused >= 2

        await until(is_refused_twice)
        await sqs_queue.send({"key": "a.mp4"})
        await plant.until_done("a.mp4")

        async def is_alone() -> bool:
            return await sqs_queue.left() == 1

        await until(is_alone)


async def test_a_fifo_queue(sqs_server: SqsServer, aws_keys: None, plant: Plant) -> None:
    keys = [f"{number}.mp4" for number in range(12)]
    async with sqs_server.new_queue(is_fifo=True, hidden_s=30) as queue:
        for number, key in enumerate(keys):
            await queue.send({"key": key}, MessageGroupId=f"camera-{number % 2}")
        settings = queue.settings()
        async with plant.feeding(settings, settings):
            await plant.until_done(*keys)
            await until_empty(queue)


async def test_the_same_asked_for_twice_runs_once(sqs_queue: QueueUnderTest, plant: Plant) -> None:
    for _ in range(2):
        await sqs_queue.send({"key": "a.mp4", "id": "film 7"})
    async with plant.feeding(sqs_queue.settings()) as (feeder,):
        await until_empty(sqs_queue)
        await plant.until_done("a.mp4")
        assert (feeder.figures.begun, feeder.figures.known) == (1, 1)


# Told of by S3.


WAYS = ["direct", "sns", "raw sns", "event bridge"]
KEYS_OF_FILMS = ["a b/c+d&e.mp4", "ä/日本語 100%.mp4", "plain.mp4"]
NO_FILMS = ["notes.txt", "plain.mp4.metadata.json", "hls/w0123456789abcdef0123/init.mp4"]


@pytest.mark.parametrize("way", WAYS)
async def test_objects_that_s3_tells_of_become_jobs(
    sqs_server: SqsServer, sqs_queue: QueueUnderTest, plant: Plant, way: str
) -> None:
    bucket = f"films-{way.replace(' ', '-')}"
    settings = sqs_queue.settings(job_source_type="internal,sqs", **s3_of(sqs_server, bucket))
    async with sqs_server.client("s3") as s3:
        place = {"LocationConstraint": "eu-central-1"}
        await s3.create_bucket(Bucket=bucket, CreateBucketConfiguration=place)
        await subscribe(sqs_server, s3, bucket, await sqs_queue.arn(), way)
        mark = {META_STREAM_ID: "20260102T030405Z-0123456789ab"}
        await s3.put_object(Bucket=bucket, Key="ours.mp4", Body=b"film", Metadata=mark)
        for key in (*NO_FILMS, *KEYS_OF_FILMS):
            await s3.put_object(Bucket=bucket, Key=key, Body=b"film")
        etag = (await s3.head_object(Bucket=bucket, Key="plain.mp4"))["ETag"].strip('"')
    async with plant.feeding(settings):
        await plant.until_done(*KEYS_OF_FILMS)
        await until_empty(sqs_queue)
    assert {spec.input.bucket for spec in plant.specs} == {bucket}
    assert {(spec.input.etag, spec.input.size) for spec in plant.specs} == {(etag, 4)}


def s3_of(server: SqsServer, bucket: str) -> dict[str, str]:
    return {
        "s3_endpoint_url": server.endpoint_url,
        "s3_access_key_id": KEYS["AWS_ACCESS_KEY_ID"],
        "s3_secret_access_key": KEYS["AWS_SECRET_ACCESS_KEY"],
        "s3_bucket_name": bucket,
    }


async def subscribe(server: SqsServer, s3: Any, bucket: str, queue_arn: str, way: str) -> None:
    events = {"Events": ["s3:ObjectCreated:*"]}
    if way == "direct":
        wanted: dict[str, Any] = {"QueueConfigurations": [{"QueueArn": queue_arn, **events}]}
    elif way == "event bridge":
        wanted = {"EventBridgeConfiguration": {}}
        async with server.client("events") as bridge:
            pattern = {"source": ["aws.s3"], "detail": {"bucket": {"name": [bucket]}}}
            await bridge.put_rule(Name=bucket, EventPattern=json.dumps(pattern))
            await bridge.put_targets(Rule=bucket, Targets=[{"Id": "jobs", "Arn": queue_arn}])
    else:
        async with server.client("sns") as sns:
            topic = (await sns.create_topic(Name=bucket))["TopicArn"]
            raw = {"RawMessageDelivery": "true"} if way == "raw sns" else {}
            await sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue_arn, Attributes=raw)
        wanted = {"TopicConfigurations": [{"TopicArn": topic, **events}]}
    await s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=wanted)


# At the start.


async def test_a_queue_that_is_not_there(sqs_queue: QueueUnderTest) -> None:
    settings = sqs_queue.settings(aws_sqs_queue_url=f"{sqs_queue.url}-not")
    with pytest.raises(SettingsError, match=r"AWS_SQS_QUEUE_URL.*its account, name and region"):
        await opened(settings)
    assert [one.level for one in await examine_sqs(settings)] == [Level.FAIL]


async def test_a_server_that_is_not_there(aws_keys: None) -> None:
    url = f"http://127.0.0.1:{free_port()}/1/jobs"
    given = {"job_source_type": "sqs", "aws_sqs_queue_url": url, "startup_timeout_seconds": 0}
    settings = Settings.model_validate(given)
    with pytest.raises(ServerUnreachableError, match="AWS_SQS_QUEUE_URL"):
        await opened(settings)
    (found,) = await examine_sqs(settings)
    assert (found.level, found.is_setting) == (Level.FAIL, False)


async def test_no_keys(sqs_queue: QueueUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEYS:
        monkeypatch.delenv(name)
    with pytest.raises(SettingsError, match=r"AWS_SQS_QUEUE_URL.*AWS_ACCESS_KEY_ID"):
        await opened(sqs_queue.settings())
    (found,) = await examine_sqs(sqs_queue.settings())
    assert (found.level, found.is_setting) == (Level.FAIL, True)


async def test_a_profile_that_is_not_there(
    sqs_queue: QueueUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(SettingsError, match=r"nobody.*AWS_SQS_QUEUE_URL"):
        await opened(sqs_queue.settings())


@pytest.mark.parametrize(
    ("allowed", "refused"),
    [
        (["sqs:ReceiveMessage", "sqs:DeleteMessage"], ["GetQueueAttributes"]),
        (["sqs:GetQueueAttributes"], sorted(RIGHTS)),
        (
            ["sqs:GetQueueAttributes", "sqs:ReceiveMessage", "sqs:ChangeMessageVisibility"],
            ["DeleteMessage"],
        ),
        (
            ["sqs:GetQueueAttributes", *(f"sqs:{right}" for right in RIGHTS)],
            [],
        ),
    ],
)
async def test_rights_that_are_missing_are_named(
    aws_keys: None, monkeypatch: pytest.MonkeyPatch, allowed: list[str], refused: list[str]
) -> None:
    server = SqsServer()
    await server.ready()
    try:
        async with server.new_queue(hidden_s=30) as queue:
            await restrict(server, monkeypatch, allowed)
            found = await examine_sqs(queue.settings())
            failed = [one for one in found if one.level is Level.FAIL]
            assert [one for one in refused if one not in str(failed)] == []
            assert bool(failed) == bool(refused)
            if refused:
                with pytest.raises(SettingsError, match=r"AWS_SQS_QUEUE_URL.*sqs:DeleteMessage"):
                    await opened(queue.settings())
            else:
                await opened(queue.settings())
    finally:
        server.stop()


async def restrict(server: SqsServer, monkeypatch: pytest.MonkeyPatch, allowed: list[str]) -> None:
    """From now on keys are looked at, and ours belong to somebody who may do this alone."""
    async with server.client("iam") as iam:
        await iam.create_user(UserName="worker")
        statement = {"Effect": "Allow", "Action": allowed, "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        await iam.put_user_policy(UserName="worker", PolicyName="queue", PolicyDocument=policy)
        keys = (await iam.create_access_key(UserName="worker"))["AccessKey"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", keys["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", keys["SecretAccessKey"])
    async with aiohttp.ClientSession() as session:
        url = f"{server.endpoint_url}/moto-api/reset-auth"
        async with session.post(url, data=b"0") as reply:
            assert reply.ok


async def test_a_queue_that_is_as_it_should_be(sqs_server: SqsServer, aws_keys: None) -> None:
    async with with_dead_letters(sqs_server, max_receives=4, hidden_s=30) as (queue, _dead):
        found = await examine_sqs(queue.settings())
    assert {one.level for one in found} == {Level.OK}, found
    assert {one.subject for one in found} == {
        "SQS", "SQS rights", "SQS redrive", "SQS visibility"
    }  # fmt: skip


async def test_a_queue_that_works_badly(sqs_queue: QueueUnderTest) -> None:
    found = {one.subject: one for one in await examine_sqs(sqs_queue.settings())}
    assert found["SQS redrive"].level is Level.WARN
    assert found["SQS visibility"].level is Level.WARN
    assert await sqs_queue.take() == []


async def opened(settings: Settings) -> None:
    async with sqs.open_source(settings):
        pass


@asynccontextmanager
async def with_dead_letters(
    server: SqsServer, *, max_receives: int, hidden_s: int = HIDDEN_S
) -> AsyncIterator[tuple[QueueUnderTest, QueueUnderTest]]:
    async with server.new_queue() as dead:
        arn = await dead.arn()
        policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": max_receives})
        async with server.new_queue(hidden_s=hidden_s, RedrivePolicy=policy) as queue:
            yield queue, dead
