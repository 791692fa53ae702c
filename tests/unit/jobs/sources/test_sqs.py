"""What becomes of messages that were received, whatever happens meanwhile: deleted, left to the
redrive policy, shown to others again, or held while a server is away."""

import asyncio
import json
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from cefmp4.config.settings import Settings
from cefmp4.errors import (
    AccessDeniedError,
    PermanentError,
    ServerUnreachableError,
    SettingsError,
)
from cefmp4.jobs.sources import sqs
from cefmp4.jobs.sources.s3_events import NewObject
from cefmp4.jobs.sources.sqs import HELD_S, LONGEST_CLAIM_S, LONGEST_REFUSED_FIFO_S, SqsSource
from cefmp4.jobs.sources.sqs_messages import MessageReader
from cefmp4.jobs.sources.sqs_queue import LONGEST_HIDDEN_S, Message, QueueFacts
from cefmp4.watch.selection import Selection


class FakeQueue:
    """What it has is given once; `hidden` says what became of it."""

    def __init__(self, *bodies: object, received: int = 1) -> None:
        self.messages = [
            Message(id=f"m{number}", receipt=f"r{number}", body=json.dumps(body), received=received)
            for number, body in enumerate(bodies)
        ]
        self.asked: list[tuple[int, int]] = []
        self.is_asked = asyncio.Event()
        self.deleted: list[str] = []
        self.hidden: dict[str, int] = {}
        self.gone: set[str] = set()
        self.answers = asyncio.Event()
        self.answers.set()
        self.is_away = False

    async def receive(self, most: int, *, hidden_s: int) -> list[Message]:
        self.asked.append((most, hidden_s))
        self.is_asked.set()
        await self.answers.wait()
        given, self.messages = self.messages[:most], self.messages[most:]
        return given

    async def delete(self, messages: Iterable[Message]) -> None:
        found = [message.id for message in messages]
        if self.is_away and found:
            raise ServerUnreachableError("SQS did not answer")
        self.deleted += found

    async def hide(self, seconds: Mapping[str, int]) -> set[str]:
        if self.is_away and seconds:
            raise ServerUnreachableError("SQS did not answer")
        self.hidden |= seconds
        return self.gone & seconds.keys()


FACTS = QueueFacts(arn="arn:aws:sqs:eu-west-1:1:jobs", waiting=0, visibility_s=30, max_receives=3)


async def nothing_is(_found: NewObject) -> bool:
    return False


def source_of(queue: Any, facts: QueueFacts = FACTS, **changed: Any) -> SqsSource:
    reader = MessageReader(selection=Selection(("*.mp4",)), is_recording=nothing_is)
    given: dict[str, Any] = {"reader": reader, "most": 10, "poll_s": 0.0}
    return SqsSource(place=facts.arn, queue=queue, facts=facts, **(given | changed))


def facts(**changed: Any) -> QueueFacts:
    given = {name: getattr(FACTS, name) for name in FACTS.__slots__}
    return QueueFacts(**(given | changed))


async def meets_an_outage(source: SqsSource, accepts: str = "", refuses: str = "") -> list[str]:
    """Of the engine, while it deals with these messages. Returns what was offered."""
    offered: list[str] = []
    with pytest.raises(ServerUnreachableError, match="Temporal"):
        await _deal_until_it_is_away(source, accepts, refuses, offered)
    return offered


async def _deal_until_it_is_away(
    source: SqsSource, accepts: str, refuses: str, offered: list[str]
) -> None:
    async with source.offers(10) as offers:
        for offer in offers:
            offered.append(offer.ref)
            if offer.ref == accepts:
                await source.accept(offer, ["id"])
            if offer.ref == refuses:
                await source.refuse(offer, "no key")
        raise ServerUnreachableError("Temporal does not answer")


async def test_what_was_accepted_is_deleted_and_what_was_not_is_shown_again() -> None:
    queue = FakeQueue({"key": "a"}, {"key": "b"}, {"key": "c"})
    source = source_of(queue)
    async with source.offers(10) as offers:
        await source.accept(offers[1], ["id"])
        assert queue.deleted == []
    assert queue.deleted == ["m1"]
    assert queue.hidden == {"r0": 0, "r2": 0}


async def test_two_messages_that_ask_for_the_same_are_both_deleted() -> None:
    queue = FakeQueue({"key": "a", "id": "7"}, {"key": "a", "id": "7"})
    source = source_of(queue)
    async with source.offers(10) as offers:
        assert offers[0] == offers[1]
        for offer in offers:
            await source.accept(offer, ["id"])
    assert queue.deleted == ["m0", "m1"]


async def test_no_more_are_asked_for_than_are_wanted() -> None:
    queue = FakeQueue()
    for most, wanted in ((10, 3), (2, 5)):
        async with source_of(queue, most=most).offers(wanted) as offers:
            assert offers == []
    assert queue.asked == [(3, 30), (2, 30)]


@pytest.mark.parametrize(("timeout", "claim"), [(43_200, LONGEST_CLAIM_S), (5, 5), (0, 0)])
async def test_a_dead_process_hides_messages_for_a_minute_at_most(timeout: int, claim: int) -> None:
    queue = FakeQueue()
    async with source_of(queue, facts(visibility_s=timeout)).offers(10):
        pass
    assert queue.asked == [(10, claim)]


@pytest.mark.parametrize(
    ("received", "arn", "seconds"),
    [
        (1, "jobs", 30),
        (5, "jobs", 30),  # where a redrive policy takes it away, it does so soon
        (6, "jobs", 60),
        (10, "jobs", 960),
        (1000, "jobs", LONGEST_HIDDEN_S),
        (1000, "jobs.fifo", LONGEST_REFUSED_FIFO_S),
    ],
)
async def test_what_is_refused_comes_more_and_more_rarely(
    received: int, arn: str, seconds: int
) -> None:
    queue = FakeQueue({"key": 7}, received=received)
    source = source_of(queue, facts(arn=arn))
    async with source.offers(10) as offers:
        await source.refuse(offers[0], "no key")
    assert queue.hidden == {"r0": seconds}
    assert queue.deleted == []


async def test_while_the_engine_is_away_messages_are_held_and_not_received_again() -> None:
    queue = FakeQueue({"key": "a"}, {"key": "b"})
    source = source_of(queue)
    for _ in range(5):
        assert await meets_an_outage(source) == ["m0", "m1"]
        assert queue.hidden == {"r0": HELD_S, "r1": HELD_S}
    async with source.offers(10) as offers:
        for offer in offers:
            await source.accept(offer, ["id"])
    assert len(queue.asked) == 1
    assert queue.deleted == ["m0", "m1"]
    async with source.offers(10) as offers:
        assert offers == []
    assert len(queue.asked) == 2


async def test_what_was_begun_before_the_engine_went_away_is_deleted() -> None:
    queue = FakeQueue({"key": "a"}, {"key": "b"}, {"key": 7})
    source = source_of(queue)
    await meets_an_outage(source, accepts="m0", refuses="m2")
    assert queue.deleted == ["m0"]
    assert queue.hidden == {"r1": HELD_S, "r2": 30}


async def test_what_was_held_for_too_long_is_asked_for_anew() -> None:
    queue = FakeQueue({"key": "a"})
    source = source_of(queue)
    await meets_an_outage(source)
    queue.gone = {"r0"}
    async with source.offers(10) as offers:
        assert offers == []
    assert len(queue.asked) == 2


async def test_what_is_held_is_shown_to_others_at_the_end() -> None:
    queue = FakeQueue({"key": "a"})
    source = source_of(queue)
    await meets_an_outage(source)
    await source.close()
    assert queue.hidden == {"r0": 0}


async def test_with_sqs_away_as_well_the_first_error_is_the_one_that_is_told() -> None:
    queue = FakeQueue({"key": "a"})
    source = source_of(queue)
    queue.is_away = True
    await meets_an_outage(source, accepts="m0")
    await source.close()


@pytest.mark.parametrize("sqs_is_away", [False, True])
async def test_a_cancel_gives_back_what_was_not_dealt_with(sqs_is_away: bool) -> None:
    queue = FakeQueue({"key": "a"}, {"key": "b"})
    source, is_inside = source_of(queue), asyncio.Event()

    async def deal() -> None:
        async with source.offers(10) as offers:
            await source.accept(offers[0], ["id"])
            queue.is_away = sqs_is_away
            is_inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(deal())
    await is_inside.wait()
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    assert (queue.deleted, queue.hidden) == (([], {}) if sqs_is_away else (["m0"], {"r1": 0}))


async def test_a_cancel_that_meets_the_answer_gives_it_back() -> None:
    queue = FakeQueue({"key": "a"})
    source = source_of(queue)
    queue.answers.clear()

    async def ask() -> None:
        async with source.offers(10):
            raise AssertionError("it was cancelled")

    task = asyncio.create_task(ask())
    await queue.is_asked.wait()
    task.cancel()
    await asyncio.sleep(0)
    queue.answers.set()
    await asyncio.wait({task})
    assert task.cancelled()
    assert queue.hidden == {"r0": 0}


async def test_a_cancel_waits_for_no_answer_that_does_not_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sqs, "LATE_ANSWER_S", 0.01)
    queue = FakeQueue({"key": "a"})
    queue.answers.clear()

    async def ask() -> None:
        async with source_of(queue).offers(10):
            raise AssertionError("it was cancelled")

    task = asyncio.create_task(ask())
    await queue.is_asked.wait()
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=5)
    assert done
    assert len(asyncio.all_tasks()) == 1  # the question has ended, too


async def test_a_question_that_nobody_lets_wait_is_not_asked_all_the_time() -> None:
    source = source_of(FakeQueue(), poll_s=0.05)
    loop = asyncio.get_running_loop()
    async with source.offers(10):
        began = loop.time()
    await source.until_more()
    assert loop.time() - began >= 0.04
    began = loop.time()
    await source.until_more()  # so long has passed already
    assert loop.time() - began < 0.04


class Looked:
    """A queue that is looked at, at the start."""

    def __init__(self, found: QueueFacts | Exception, refused: Exception | None = None) -> None:
        self.found, self.refused = found, refused

    async def facts(self) -> QueueFacts:
        if isinstance(self.found, Exception):
            raise self.found
        return self.found

    async def refused_rights(self) -> list[Exception]:
        return [self.refused] if self.refused else []


@pytest.mark.parametrize(
    ("queue", "error", "says"),
    [
        (Looked(PermanentError("no such queue")), SettingsError, "AWS_SQS_QUEUE_URL: no such"),
        (Looked(AccessDeniedError("refused")), SettingsError, "AWS_SQS_QUEUE_URL: refused"),
        (
            Looked(FACTS, AccessDeniedError("DeleteMessage", hint="AWS_SQS_QUEUE_URL: allow it")),
            SettingsError,
            "^DeleteMessage .*allow it",
        ),
        (Looked(ServerUnreachableError("silence")), ServerUnreachableError, "check AWS_SQS_QUEUE"),
    ],
)
async def test_what_cannot_work_ends_the_start_with_the_name_of_the_setting(
    queue: Any, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        await sqs._look_at(queue, Settings(startup_timeout_seconds=0))


@pytest.mark.parametrize(
    ("found", "warnings"),
    [
        (facts(), []),
        (facts(max_receives=0), ["no redrive policy"]),
        (facts(visibility_s=9), ["visibility timeout"]),
        (facts(visibility_s=10), []),
    ],
)
async def test_what_works_badly_is_said_at_the_start(
    found: QueueFacts, warnings: list[str]
) -> None:
    with capture_logs() as lines:
        assert await sqs._look_at(Looked(found), Settings(startup_timeout_seconds=0)) == found  # type: ignore[arg-type]
    assert len(lines) == len(warnings)
    for line, warning in zip(lines, warnings, strict=True):
        assert warning in line["event"]
