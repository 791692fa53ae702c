"""Posts messages to WEBHOOK_URL, signed. Each is sent once here; the engine tries again."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import structlog

from cefmp4 import metrics
from cefmp4.config.webhooks import WebhookSettings
from cefmp4.errors import CefError, ServerUnreachableError, TransientError
from cefmp4.jobs.callbacks.messages import Message, message_of_end, message_of_stored
from cefmp4.jobs.steps import JobProcedure, Made, StepContext
from cefmp4.jobs.webhook_signatures import headers_for
from cefmp4.model.callback import Delivery
from cefmp4.model.job import JobEnd
from cefmp4.reachability import WEBHOOK_URL

log = structlog.get_logger()

ANSWER_S = 15.0
GONE = 410


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    url: str = field(repr=False)  # may hold a password, or be one
    place: str  # the same, for messages
    secret: str = field(repr=False)
    session: aiohttp.ClientSession = field(repr=False)
    clock: Callable[[], float] = time.time

    @property
    def procedure(self) -> JobProcedure:
        """Of the jobs that tell of a stored recording."""
        return JobProcedure(make=self._tell_of_stored, encodes=False)

    async def report(self, end: JobEnd) -> None:
        await self.send(message_of_end(end))

    async def _tell_of_stored(self, context: StepContext) -> Made:
        status = await self.send(message_of_stored(context.spec))
        return Made(summary={"answered": status}, is_published=True)

    async def send(self, message: Message) -> int:
        """The status of the answer, which is good, or says that nobody wants to know. Raises
        TransientError."""
        try:
            status = await self._post(message)
        except CefError as error:
            self._count(message, Delivery.FAILED)
            WEBHOOK_URL.failed(error)
            raise
        WEBHOOK_URL.answered()
        if status == GONE:
            self._count(message, Delivery.GONE)
            log.info("nobody wants to be called back", url=self.place, message_id=message.id)
        elif 200 <= status < 300:
            self._count(message, Delivery.DELIVERED)
            log.info("called back", message_type=message.type, message_id=message.id)
        else:
            self._count(message, Delivery.FAILED)
            raise TransientError(f"{self.place} answered {status}", hint="check WEBHOOK_URL")
        return status

    async def _post(self, message: Message) -> int:
        """What comes behind the head of the answer is not read, and no redirect is followed: that
        would take what we tell to a place that nobody named."""
        body = message.body
        headers = headers_for(self.secret, message.id, self.clock(), body)
        try:
            async with (
                asyncio.timeout(ANSWER_S),
                self.session.post(
                    self.url,
                    data=body,
                    headers={"Content-Type": "application/json", **headers},
                    allow_redirects=False,
                ) as response,
            ):
                return response.status
        except TimeoutError:
            reason = f"did not answer within {ANSWER_S:g} s"
        except aiohttp.ClientSSLError:
            reason = "speaks no TLS that is trusted here"
        except (aiohttp.ClientError, OSError) as error:
            reason = f"does not answer: {type(error).__name__}"
        raise ServerUnreachableError(f"{self.place} {reason}", hint="check WEBHOOK_URL")

    @staticmethod
    def _count(message: Message, delivery: Delivery) -> None:
        metrics.callbacks.labels(message.type, delivery).inc()


@asynccontextmanager
async def open_sender(settings: WebhookSettings) -> AsyncIterator[Sender | None]:
    """None where nobody is called back."""
    if not settings.webhook_address:
        yield None
        return
    # A connection for each: one that is kept breaks just when it is needed.
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": "CefMP4"},
        auto_decompress=False,
    ) as session:
        yield Sender(
            url=settings.webhook_address,
            place=settings.webhook_place,
            secret=settings.webhook_secrets[0],
            session=session,
        )
