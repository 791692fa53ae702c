"""One queue of SQS, as the source of jobs uses it: its few calls, their errors in our words, and
server_up."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import aioboto3
from aiobotocore.config import AioConfig
from botocore import xform_name

from cefmp4.config.settings import Settings
from cefmp4.config.values import endpoint_of_queue
from cefmp4.errors import AccessDeniedError, CefError, PermanentError, TransientError
from cefmp4.jobs.sources.sqs_errors import FOREIGN_ERRORS, HINT_OF_NAME, RIGHTS, translate
from cefmp4.reachability import SQS
from cefmp4.retry import REQUEST_ATTEMPTS, bounded
from cefmp4.tasks import together

CONNECT_TIMEOUT_S = 5.0
ANSWER_S = 15.0  # beyond what a question waits there
LONGEST_HIDDEN_S = 43_000  # SQS allows 12 hours, from when the message was received

_AWS_HOST = re.compile(r"(sqs\.[a-z0-9-]+|([a-z0-9-]+\.)?queue)\.amazonaws\.com(\.cn)?")
_REGION_IN_HOST = re.compile(r"(?:^|\.)sqs(?:-fips)?\.([a-z]{2}(?:-[a-z]+)+-[0-9]+)\.")
_LEGACY_HOST = re.compile(r"(?:([a-z0-9-]+)\.)?queue\.amazonaws\.com(?:\.cn)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueConfig:
    """`endpoint_url` None: that of AWS in the region."""

    url: str
    region: str
    endpoint_url: str | None = None
    wait_s: int = 0  # that a question for messages may wait there

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]


def queue_config(settings: Settings) -> QueueConfig:
    """The region in an address of AWS is the queue's; AWS_REGION is for the others."""
    url = settings.aws_sqs_queue_url or ""
    host = urlsplit(url).hostname or ""
    return QueueConfig(
        url=url,
        region=_region_in(host) or settings.aws_region or settings.s3_region_name,
        endpoint_url=None if _AWS_HOST.fullmatch(host) else endpoint_of_queue(url),
        wait_s=settings.sqs_wait_time,
    )


def _region_in(host: str) -> str:
    if found := _REGION_IN_HOST.search(host):
        return found[1]
    legacy = _LEGACY_HOST.fullmatch(host)
    return (legacy[1] or "us-east-1") if legacy else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """`receipt`: names this one delivery of it."""

    id: str
    receipt: str = field(repr=False)
    body: str = field(repr=False)
    received: int = 1  # times, this one included


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFacts:
    """`arn`: the same whatever address it is reached by. `max_receives` 0: no redrive policy."""

    arn: str
    waiting: int
    visibility_s: int
    max_receives: int

    @property
    def is_fifo(self) -> bool:
        return self.arn.endswith(".fifo")


@asynccontextmanager
async def open_queue(config: QueueConfig) -> AsyncIterator["Queue"]:
    """Sends nothing yet; but looks for keys, which may have to be asked for."""
    client_config = AioConfig(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=config.wait_s + ANSWER_S,
        retries={"total_max_attempts": 1, "mode": "standard"},  # cefmp4.retry is the one layer
    )
    async with AsyncExitStack() as stack:
        try:
            session = aioboto3.Session(region_name=config.region)
            opening = session.client("sqs", endpoint_url=config.endpoint_url, config=client_config)
            client = await stack.enter_async_context(opening)
        except FOREIGN_ERRORS as error:
            raise translate("request", error) from None
        yield Queue(client, config)


class Queue:
    """`client` is aioboto3's. Everything may be done twice."""

    def __init__(self, client: Any, config: QueueConfig) -> None:
        self._client = client
        self._config = config

    def __repr__(self) -> str:
        return f"<Queue {self._config.url}>"

    async def receive(self, most: int, *, hidden_s: int) -> list[Message]:
        """Each is hidden from others so long. Waits for some, but not for all."""
        reply = await self._call(
            "ReceiveMessage",
            waits_s=self._config.wait_s,
            MaxNumberOfMessages=most,
            WaitTimeSeconds=self._config.wait_s,
            VisibilityTimeout=hidden_s,
            # Servers that are older than its new name know this one.
            AttributeNames=["ApproximateReceiveCount"],
        )
        return [
            Message(
                id=message["MessageId"],
                receipt=message["ReceiptHandle"],
                body=message.get("Body", ""),
                received=_number(message.get("Attributes", {}).get("ApproximateReceiveCount"), 1),
            )
            for message in reply.get("Messages", [])
            if {"MessageId", "ReceiptHandle"} <= message.keys()
        ]

    async def delete(self, messages: Iterable[Message]) -> None:
        await self._batch("DeleteMessageBatch", {one.receipt: {} for one in messages})

    async def hide(self, seconds: Mapping[str, int]) -> set[str]:
        """Each of these receipts for so long from now; 0 shows it at once. Returns those that hold
        no message any more: their time was over, or somebody deleted it."""
        asked = {receipt: {"VisibilityTimeout": one} for receipt, one in seconds.items()}
        return await self._batch("ChangeMessageVisibilityBatch", asked)

    async def facts(self) -> QueueFacts:
        reply = await self._call("GetQueueAttributes", AttributeNames=["All"])
        told = reply.get("Attributes") or {}
        if "VisibilityTimeout" not in told:  # many a server answers "fine" to whatever it is asked
            raise PermanentError("what answers there is no queue of SQS", hint=HINT_OF_NAME)
        return QueueFacts(
            arn=told.get("QueueArn") or self._config.url,
            waiting=_number(told.get("ApproximateNumberOfMessages"), 0),
            visibility_s=_number(told["VisibilityTimeout"], 30),
            max_receives=_max_receives(told.get("RedrivePolicy")),
        )

    async def refused_rights(self) -> list[AccessDeniedError]:
        """Of what is done with messages, tried on none: SQS looks at rights before it looks at what
        is asked, and no server gives messages to whoever asks for none of them."""
        nothing: dict[str, dict[str, Any]] = {
            "ReceiveMessage": {"MaxNumberOfMessages": 0},
            "DeleteMessage": {"ReceiptHandle": "none"},
            "ChangeMessageVisibility": {"ReceiptHandle": "none", "VisibilityTimeout": 0},
        }
        answers = await together(*(self._refusal(name, nothing[name]) for name in RIGHTS))
        return [refusal for refusal in answers if refusal is not None]

    async def _refusal(self, operation: str, params: dict[str, Any]) -> AccessDeniedError | None:
        try:
            await self._call(operation, **params)
        except AccessDeniedError as error:
            return error
        except PermanentError:
            pass  # it was allowed, and there was nothing to do
        return None

    async def _batch(self, operation: str, asked: Mapping[str, dict[str, Any]]) -> set[str]:
        """The receipts that the server holds no message for. At most ten."""
        if not asked:
            return set()
        receipts = list(asked)
        entries = [
            {"Id": str(number), "ReceiptHandle": receipt, **asked[receipt]}
            for number, receipt in enumerate(receipts)
        ]
        reply = await self._call(operation, attempts=REQUEST_ATTEMPTS, Entries=entries)
        failed = reply.get("Failed", [])
        for one in failed:
            if not one.get("SenderFault"):
                raise TransientError(f"SQS {operation} failed: {one.get('Code', '')}")
        return {receipts[int(one["Id"])] for one in failed}

    async def _call(
        self, operation: str, *, attempts: int = 1, waits_s: int = 0, **params: Any
    ) -> dict[str, Any]:
        method = getattr(self._client, xform_name(operation))

        async def attempt() -> dict[str, Any]:
            try:
                async with asyncio.timeout(waits_s + ANSWER_S):
                    reply: dict[str, Any] = await method(QueueUrl=self._config.url, **params)
            except FOREIGN_ERRORS as error:
                raise translate(operation, error) from None
            return reply

        try:
            found = await bounded(attempt, server="sqs", attempts=attempts)
        except TransientError as error:
            SQS.failed(error)
            raise
        except CefError:
            SQS.answered()  # a refusal is an answer
            raise
        SQS.answered()
        return found


def _max_receives(policy: object) -> int:
    try:
        read = json.loads(policy) if isinstance(policy, str) else {}
        return _number(read.get("maxReceiveCount"), 0)
    except (ValueError, AttributeError):
        return 0


def _number(told: object, default: int) -> int:
    try:
        return int(told) if isinstance(told, str | int) else default
    except ValueError:
        return default
