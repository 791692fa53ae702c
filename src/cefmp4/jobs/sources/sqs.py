"""Jobs from a queue of SQS: a message is deleted once what it asks for is begun, and what cannot be
read as jobs is left to the redrive policy of the queue."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar

import structlog

from cefmp4.config.settings import Settings
from cefmp4.errors import CefError, PermanentError, SettingsError
from cefmp4.jobs.sources.sqs_errors import SETTING
from cefmp4.jobs.sources.sqs_messages import MessageReader, open_reader
from cefmp4.jobs.sources.sqs_queue import (
    LONGEST_HIDDEN_S,
    Message,
    Queue,
    QueueFacts,
    open_queue,
    queue_config,
)
from cefmp4.model.job import JobEnd
from cefmp4.ports.sources import JobSource, Offer
from cefmp4.retry import at_start
from cefmp4.tasks import cancel_all, together

log = structlog.get_logger()

LONGEST_CLAIM_S = 60  # a queue may hide messages for hours; a dead process must not
SHORTEST_CLAIM_S = 10  # less, and a message comes again while its jobs are being begun
HELD_S = 120  # longer than the longest pause between two tries
LAST_WORDS_S = 2.0
LATE_ANSWER_S = 0.5
REFUSED_AS_USUAL = 5  # times; then a message that nobody takes away comes more and more rarely
LONGEST_REFUSED_FIFO_S = 900  # it holds up those of its group


class Fate(StrEnum):
    OPEN = "open"
    ACCEPTED = "accepted"
    REFUSED = "refused"


@dataclass(slots=True)
class _Claim:
    message: Message
    offer: Offer
    fate: Fate = Fate.OPEN


@dataclass(slots=True, kw_only=True)
class SqsSource:
    name: ClassVar[str] = "sqs"
    wants_reports: ClassVar[bool] = False
    repeats_mean_again: ClassVar[bool] = False

    place: str
    queue: Queue
    facts: QueueFacts
    reader: MessageReader
    most: int
    poll_s: float
    _claims: list[_Claim] = field(default_factory=list, repr=False)
    _held: list[Message] = field(default_factory=list, repr=False)
    _asked_at: float = 0.0

    @property
    def claim_s(self) -> int:
        return min(self.facts.visibility_s, LONGEST_CLAIM_S)

    @asynccontextmanager
    async def offers(self, most: int) -> AsyncIterator[Sequence[Offer]]:
        messages = await self._claim(min(most, self.most))
        claims: list[_Claim] = []
        try:
            read = await together(*(self.reader.offer(message) for message in messages))
            claims = [_Claim(message, offer) for message, offer in zip(messages, read, strict=True)]
            self._claims = claims
            yield read
        except CefError:
            # A server is away. Each delivery counts for the redrive policy, so that they stay ours
            # meanwhile, or an outage would drive good messages into the dead letter queue.
            await self._end(claims)
            await self._hold(_undealt(messages, claims))
            raise
        except BaseException:
            await self._end(claims)
            await self._give_back(_undealt(messages, claims))
            raise
        await self._settle(claims)
        await self.queue.hide({one.receipt: 0 for one in _undealt(messages, claims)})

    async def accept(self, offer: Offer, job_ids: Sequence[str]) -> None:
        """Deleted with the others of its block."""
        self._claim_of(offer).fate = Fate.ACCEPTED

    async def refuse(self, offer: Offer, fault: str) -> None:
        self._claim_of(offer).fate = Fate.REFUSED

    async def until_more(self) -> None:
        """The question itself waits, but not with SQS_WAIT_TIME=0, nor on every server."""
        await asyncio.sleep(max(0.0, self._asked_at + self.poll_s - time.monotonic()))

    async def report(self, end: JobEnd) -> None:
        """Nobody is told."""

    async def waiting(self) -> int:
        return (await self.queue.facts()).waiting

    async def close(self) -> None:
        """What is held meanwhile may be somebody else's."""
        held, self._held = self._held, []
        await self._give_back(held)

    def _claim_of(self, offer: Offer) -> _Claim:
        """By the very offer: two messages may ask for the same."""
        return next(claim for claim in self._claims if claim.offer is offer)

    async def _claim(self, most: int) -> list[Message]:
        if held := await self._still_held():
            return held
        self._asked_at = time.monotonic()
        asking = asyncio.create_task(
            self.queue.receive(most, hidden_s=self.claim_s), name="question to SQS"
        )
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            await self._give_back(await _late_answer(asking))
            raise

    async def _still_held(self) -> list[Message]:
        if not self._held:
            return []
        try:
            gone = await self.queue.hide({one.receipt: HELD_S for one in self._held})
        except PermanentError:
            gone = {one.receipt for one in self._held}
        held, self._held = [one for one in self._held if one.receipt not in gone], []
        return held

    async def _settle(self, claims: list[_Claim]) -> None:
        await self.queue.delete(one.message for one in claims if one.fate is Fate.ACCEPTED)
        refused = [one.message for one in claims if one.fate is Fate.REFUSED]
        await self.queue.hide({one.receipt: self._refused_s(one) for one in refused})

    def _refused_s(self, message: Message) -> int:
        """The redrive policy takes it away after a few times. Where there is none, it would come,
        and be told of, until the queue forgets it."""
        longest = LONGEST_REFUSED_FIFO_S if self.facts.is_fifo else LONGEST_HIDDEN_S
        times = min(max(0, message.received - REFUSED_AS_USUAL), 30)
        return min(max(1, self.claim_s) << times, longest)

    async def _end(self, claims: list[_Claim]) -> None:
        """Where it does not work, they come again, which changes nothing."""
        await _briefly(self._settle(claims))

    async def _hold(self, messages: list[Message]) -> None:
        self._held = messages
        await _briefly(self.queue.hide({one.receipt: HELD_S for one in messages}))

    async def _give_back(self, messages: list[Message]) -> None:
        await _briefly(self.queue.hide({one.receipt: 0 for one in messages}))


async def _late_answer(asking: "asyncio.Task[list[Message]]") -> list[Message]:
    """What is on its way to somebody who wants it no more: nobody else would see it for a while."""
    try:
        await asyncio.wait({asking}, timeout=LATE_ANSWER_S)
    finally:
        await cancel_all({asking})
    has_answer = not asking.cancelled() and asking.exception() is None
    return asking.result() if has_answer else []


def _undealt(messages: list[Message], claims: list[_Claim]) -> list[Message]:
    dealt_with = {claim.message.receipt for claim in claims if claim.fate is not Fate.OPEN}
    return [message for message in messages if message.receipt not in dealt_with]


async def _briefly(work: Awaitable[object]) -> None:
    """Best effort, of somebody who ends."""
    with suppress(CefError, TimeoutError):
        async with asyncio.timeout(LAST_WORDS_S):
            await work


@asynccontextmanager
async def open_source(settings: Settings) -> AsyncIterator[JobSource]:
    async with AsyncExitStack() as stack:
        try:
            queue = await stack.enter_async_context(open_queue(queue_config(settings)))
        except PermanentError as error:
            raise _wrong(error) from error
        facts = await _look_at(queue, settings)
        reader = await stack.enter_async_context(open_reader(settings))
        source = SqsSource(
            place=facts.arn,
            queue=queue,
            facts=facts,
            reader=reader,
            most=settings.sqs_max_messages,
            poll_s=settings.worker_poll_ms / 1000,
        )
        stack.push_async_callback(source.close)
        yield source


async def _look_at(queue: Queue, settings: Settings) -> QueueFacts:
    async def look() -> QueueFacts:
        try:
            found = await queue.facts()
            if refused := await queue.refused_rights():
                raise refused[0]
        except PermanentError as error:
            raise _wrong(error) from error
        return found

    seconds = settings.startup_timeout_seconds
    facts = await at_start(look, server="SQS", setting=SETTING, seconds=seconds)
    if not facts.max_receives:
        log.warning(
            "the queue has no redrive policy: what is no job comes again until it expires",
            queue=facts.arn,
        )
    if facts.visibility_s < SHORTEST_CLAIM_S:
        log.warning(
            "the visibility timeout of the queue is short: messages may come twice",
            queue=facts.arn,
            seconds=facts.visibility_s,
        )
    return facts


def _wrong(error: PermanentError) -> SettingsError:
    setting = "" if SETTING in error.hint else f"{SETTING}: "
    return SettingsError(f"{setting}{error.args[0]}", hint=error.hint)
