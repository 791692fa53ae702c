"""A real SQS for tests, with the S3, SNS and EventBridge that tell it of objects: moto's server, in
a process of its own, so that it can be paused. It keeps everything in memory, and ends with us."""

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aioboto3
import pytest
import pytest_asyncio
from tests.support.ports import free_port
from tests.support.source_backend import Seen

from cefmp4.config.settings import Settings
from cefmp4.jobs.sources import sqs
from cefmp4.ports.sources import JobSource

REGION = "eu-central-1"
KEYS = {"AWS_ACCESS_KEY_ID": "of-the-tests", "AWS_SECRET_ACCESS_KEY": "of-the-tests"}
START_S = 30.0
HIDDEN_S = 1  # the shortest that SQS knows, beside none
# As it comes, it asks for the time, and for all attributes of the queue, once for each message that
# is there and each that it hands out: a thousand messages would take minutes. And of two requests
# that delete at the same moment, one is lost with all that it did.
_SERVE = """
import sys, time
from moto.server import ThreadedMotoServer
from moto.sqs import models
models.unix_time, models.unix_time_millis = time.time, lambda: time.time() * 1000
models.SQSBackend.is_message_valid_based_on_retention_period = lambda *_: True
def one_by_one(method):
    def call(queue, *given):
        with queue._messages_lock:
            return method(queue, *given)
    return call
models.Queue.add_message = one_by_one(models.Queue.add_message)
models.Queue.delete_message = one_by_one(models.Queue.delete_message)
server = ThreadedMotoServer("127.0.0.1", int(sys.argv[1]), verbose=False)
server.start()
sys.stdin.read()  # until whoever started us is gone
"""


class SqsServer:
    def __init__(self) -> None:
        self.port = free_port()
        self.endpoint_url = f"http://127.0.0.1:{self.port}"
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVE, str(self.port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        # Each of its own would read all that is known of AWS anew.
        self._session: Any = aioboto3.Session(region_name=REGION)

    async def ready(self) -> None:
        async with asyncio.timeout(START_S):
            while not await self._listens():  # noqa: ASYNC110  # it tells nobody
                await asyncio.sleep(0.05)

    async def _listens(self) -> bool:
        assert self._process.poll() is None, "moto's server ended"
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        return True

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        """It keeps its connections and answers nothing."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self._process.pid, signal.SIGCONT)

    def client(self, service: str, **keys: str) -> Any:
        keys = keys or {name.lower(): value for name, value in KEYS.items()}
        return self._session.client(service, endpoint_url=self.endpoint_url, **keys)

    @asynccontextmanager
    async def new_queue(
        self, *, hidden_s: int = HIDDEN_S, is_fifo: bool = False, **attributes: str
    ) -> AsyncIterator["QueueUnderTest"]:
        """Its messages are hidden for so long."""
        name = f"jobs-{secrets.token_hex(6)}" + (".fifo" if is_fifo else "")
        attributes["VisibilityTimeout"] = str(hidden_s)
        if is_fifo:
            attributes |= {"FifoQueue": "true", "ContentBasedDeduplication": "true"}
        async with self.client("sqs") as client:
            made = await client.create_queue(QueueName=name, Attributes=attributes)
            yield QueueUnderTest(client, made["QueueUrl"])


class QueueUnderTest:
    def __init__(self, client: Any, url: str) -> None:
        self.client = client
        self.url = url

    def settings(self, **changed: Any) -> Settings:
        given: dict[str, Any] = {
            "job_source_type": "sqs",
            "aws_sqs_queue_url": self.url,
            "aws_region": REGION,
            "sqs_wait_time": 1,
            "worker_poll_ms": 50,
            "startup_timeout_seconds": 5,
        }
        return Settings.model_validate(given | changed)

    async def send(self, body: object, **params: str) -> str:
        """Returns its MessageId. Texts go as they are."""
        text = body if isinstance(body, str) else json.dumps(body)
        sent = await self.client.send_message(QueueUrl=self.url, MessageBody=text, **params)
        return str(sent["MessageId"])

    async def send_many(self, bodies: list[object]) -> None:
        for start in range(0, len(bodies), 10):
            entries = [
                {"Id": str(number), "MessageBody": json.dumps(body)}
                for number, body in enumerate(bodies[start : start + 10])
            ]
            await self.client.send_message_batch(QueueUrl=self.url, Entries=entries)

    async def arn(self) -> str:
        return str((await self.attributes())["QueueArn"])

    async def attributes(self) -> dict[str, str]:
        told = await self.client.get_queue_attributes(QueueUrl=self.url, AttributeNames=["All"])
        found: dict[str, str] = told["Attributes"]
        return found

    async def left(self) -> int:
        """Messages in it, whether they are hidden or not."""
        told = await self.attributes()
        names = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
        return sum(int(told[name]) for name in names)

    async def take(self) -> list[dict[str, Any]]:
        """What anybody else would get of it now. It is not hidden from the next who asks."""
        reply = await self.client.receive_message(
            QueueUrl=self.url,
            MaxNumberOfMessages=10,
            VisibilityTimeout=0,
            AttributeNames=["ApproximateReceiveCount"],
        )
        found: list[dict[str, Any]] = reply.get("Messages", [])
        return found


class SqsBackend:
    """Under the contract of sources of jobs. One message at a time: which of several is hidden, and
    which deleted, SQS tells nobody."""

    def __init__(self, queue: QueueUnderTest, pollers: list[JobSource]) -> None:
        self._queue = queue
        self.pollers = pollers

    async def put(self, asked: dict[str, Any]) -> str:
        return await self._queue.send(asked)

    async def put_nonsense(self) -> str:
        return await self._queue.send("{")

    async def seen(self, ref: str) -> Seen:
        return Seen("gone" if await self._queue.left() == 0 else "pending")

    async def put_back(self, ref: str) -> None:
        raise NotImplementedError("a message is not put back")

    async def pass_time(self) -> None:
        await asyncio.sleep(HIDDEN_S)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def sqs_server() -> AsyncIterator[SqsServer]:
    server = SqsServer()
    await server.ready()
    yield server
    server.stop()


@pytest.fixture
def aws_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The chain of the client library finds these alone."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")


@pytest_asyncio.fixture
async def sqs_queue(sqs_server: SqsServer, aws_keys: None) -> AsyncIterator[QueueUnderTest]:
    async with sqs_server.new_queue() as queue:
        yield queue


@pytest_asyncio.fixture
async def sqs_backend(sqs_queue: QueueUnderTest) -> AsyncIterator[SqsBackend]:
    settings = sqs_queue.settings()
    async with sqs.open_source(settings) as one, sqs.open_source(settings) as other:
        yield SqsBackend(sqs_queue, [one, other])
