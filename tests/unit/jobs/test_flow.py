"""How a job goes, decided without an engine: here one that answers what a test tells it."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count, repeat

import pytest

from cefmp4.jobs.callbacks.messages import MOST_TRIES
from cefmp4.jobs.flow import (
    LAST_WORD_S,
    LONGEST_PAUSE_S,
    LONGEST_TELLING_PAUSE_S,
    MOST_REPORTS,
    MOST_WAITS,
    Answer,
    JobFailedError,
    JobFlow,
    Order,
    Standing,
    StepError,
    Trouble,
)
from cefmp4.model.job import FailReason, JobInput, JobKind, JobSpec, JobState, Step

SPEC = JobSpec(subject="s", kind=JobKind.HLS, input=JobInput(bucket="b", key="k"), max_attempts=3)
DONE: dict[str, object] = {"master_key": "hls/s/master.m3u8"}


def copied(order: Order) -> Answer:
    return Answer(step=order.step, attempt=order.attempt, summary=dict(DONE))


def needs_slot(order: Order) -> Answer:
    return Answer(step=order.step, attempt=order.attempt, summary={}, needs_slot=True)


def fails(trouble: Trouble, text: str = "no") -> Callable[[Order], Answer]:
    def answer(_order: Order) -> Answer:
        raise StepError(trouble, text)

    return answer


@dataclass
class Told:
    """Answers each step by the next of its `answers`, and well when they are used up."""

    answers: list[Callable[[Order], Answer]]
    orders: list[Order] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    standing: Standing = field(default_factory=Standing)
    names: "count[int]" = field(default_factory=lambda: count(1))
    clock: Iterator[float] = field(default_factory=lambda: repeat(1000.0))

    async def perform(self, order: Order) -> Answer:
        self.orders.append(order)
        return self.answers.pop(0)(order) if self.answers else copied(order)

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    def now(self) -> float:
        return next(self.clock)

    def new_name(self) -> str:
        return f"a{next(self.names)}"

    def show(self, standing: Standing) -> None:
        self.standing = standing

    @property
    def steps(self) -> list[tuple[Step, str]]:
        return [(order.step, order.attempt) for order in self.orders]


async def test_what_can_be_copied_is_published() -> None:
    engine = Told([])
    assert await JobFlow(SPEC, engine).run() == DONE
    assert engine.steps == [(Step.LOOK, "a1"), (Step.PUBLISH, "a1")]
    assert engine.standing.result == DONE


async def test_what_needs_a_slot_is_encoded_under_another_name() -> None:
    engine = Told([needs_slot])
    await JobFlow(SPEC, engine).run()
    assert engine.steps == [(Step.LOOK, "a1"), (Step.ENCODE, "a2"), (Step.PUBLISH, "a2")]
    assert engine.standing.attempts == ("a2",)


async def test_what_was_made_before_is_not_published_again() -> None:
    def made(order: Order) -> Answer:
        return Answer(step=order.step, attempt=order.attempt, summary=dict(DONE), is_published=True)

    engine = Told([made])
    assert await JobFlow(SPEC, engine).run() == DONE
    assert engine.steps == [(Step.LOOK, "a1")]


async def test_an_input_that_is_the_reason_is_never_tried_again() -> None:
    engine = Told([fails(Trouble.INPUT, "no video in it")])
    with pytest.raises(JobFailedError, match="no video") as caught:
        await JobFlow(SPEC, engine).run()
    assert caught.value.reason is FailReason.ERROR
    assert engine.steps == [(Step.LOOK, "a1"), (Step.DISCARD, "a2")]
    assert engine.standing.error == "no video in it"


async def test_each_try_has_a_name_of_its_own_and_all_are_used_up_once() -> None:
    engine = Told([fails(Trouble.FAILED)] * 3)
    with pytest.raises(JobFailedError) as caught:
        await JobFlow(SPEC, engine).run()
    assert caught.value.reason is FailReason.DEAD_LETTER
    assert [attempt for _, attempt in engine.steps] == ["a1", "a2", "a3", "a4"]
    assert engine.orders[-1].attempts == ("a1", "a2", "a3")
    assert engine.pauses == [4.0, 8.0]


async def test_the_first_loss_of_a_worker_costs_no_time_and_the_second_does() -> None:
    engine = Told([fails(Trouble.LOST), fails(Trouble.LOST)])
    await JobFlow(SPEC, engine).run()
    assert engine.pauses == [8.0]
    assert engine.standing.counted == 2


@pytest.mark.parametrize("trouble", [Trouble.AWAY, Trouble.HANDED_BACK])
async def test_what_is_no_fault_of_the_job_is_not_counted(trouble: Trouble) -> None:
    engine = Told([fails(trouble)] * 20)
    await JobFlow(SPEC, engine).run()
    assert engine.standing.counted == 0
    assert max(engine.pauses, default=0.0) <= LONGEST_PAUSE_S


async def test_a_wait_ends_some_time() -> None:
    engine = Told([fails(Trouble.AWAY)] * (MOST_WAITS + 9))
    with pytest.raises(JobFailedError):
        await JobFlow(SPEC, engine).run()
    assert len(engine.orders) == MOST_WAITS + 3 + 1


async def test_a_worker_that_was_only_cut_off_costs_no_attempt() -> None:
    engine = Told([fails(Trouble.LOST), needs_slot, fails(Trouble.LOST)])
    flow = JobFlow(SPEC, engine)
    await flow.run()
    assert engine.standing.counted == 2
    for _ in range(2):
        flow.lives("a1")
        flow.lives("unheard of")
    assert engine.standing.counted == 1


async def test_that_it_was_only_cut_off_may_be_heard_first() -> None:
    """Where the server was away, it learns of both at the same moment."""

    def heard_first(order: Order) -> Answer:
        flow.lives(order.attempt)
        raise StepError(Trouble.LOST, "the worker died")

    engine = Told([heard_first, needs_slot, heard_first, fails(Trouble.LOST)])
    flow = JobFlow(SPEC, engine)
    await flow.run()
    assert engine.standing.counted == 1


async def test_a_job_does_not_fail_before_its_worker_could_say_that_it_was_cut_off() -> None:
    class Back(Told):
        async def pause(self, seconds: float) -> None:
            await super().pause(seconds)
            flow.lives("a1")

    engine = Back([fails(Trouble.LOST)])
    flow = JobFlow(replace(SPEC, max_attempts=1), engine)
    assert await flow.run() == DONE
    assert (engine.standing.counted, engine.pauses) == (0, [LAST_WORD_S])


async def test_an_answer_to_another_step_is_none() -> None:
    def forged(order: Order) -> Answer:
        return Answer(step=Step.PUBLISH, attempt="a0", summary={"master_key": "mine"})

    engine = Told([forged])
    assert await JobFlow(SPEC, engine).run() == DONE
    assert engine.standing.counted == 0


async def test_a_cancel_takes_back_what_was_written() -> None:
    begun = asyncio.Event()

    class Slow(Told):
        async def perform(self, order: Order) -> Answer:
            answer = await super().perform(order)
            if order.step is Step.LOOK:
                begun.set()
                await asyncio.sleep(60)
            return answer

    engine = Slow([])
    running = asyncio.create_task(JobFlow(SPEC, engine).run())
    await begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert engine.steps == [(Step.LOOK, "a1"), (Step.DISCARD, "a2")]
    assert engine.standing.reason is FailReason.CANCELLED


async def test_an_accepted_attempt_is_never_taken_back() -> None:
    engine = Told([copied, fails(Trouble.INPUT)])
    with pytest.raises(JobFailedError):
        await JobFlow(SPEC, engine).run()
    assert engine.steps[:2] == [(Step.LOOK, "a1"), (Step.PUBLISH, "a1")]
    (clearing,) = engine.orders[2:]
    assert (clearing.step, clearing.attempts) == (Step.DISCARD, ())
    assert clearing.failed_as is FailReason.ERROR


async def test_a_store_that_is_away_is_waited_for_before_all_is_taken_back() -> None:
    engine = Told([fails(Trouble.INPUT), fails(Trouble.AWAY), fails(Trouble.AWAY)])
    with pytest.raises(JobFailedError):
        await JobFlow(SPEC, engine).run()
    assert [step for step, _ in engine.steps] == [Step.LOOK] + [Step.DISCARD] * 3


TOLD = replace(SPEC, tells=("postgres",), ref="17")


async def test_who_asked_is_told_of_the_result() -> None:
    engine = Told([])
    assert await JobFlow(TOLD, engine).run() == DONE
    assert [step for step, _ in engine.steps] == [Step.LOOK, Step.PUBLISH, Step.REPORT]
    end = engine.orders[-1].end
    assert end is not None
    assert (end.spec, end.state, end.attempts, end.result) == (TOLD, JobState.COMPLETE, 1, DONE)
    assert (end.at, engine.orders[-1].whom) == (1000.0, "postgres")


async def test_who_asked_is_told_why_it_failed() -> None:
    engine = Told([fails(Trouble.INPUT, "no video in it")])
    with pytest.raises(JobFailedError):
        await JobFlow(TOLD, engine).run()
    assert [step for step, _ in engine.steps] == [Step.LOOK, Step.DISCARD, Step.REPORT]
    end = engine.orders[-1].end
    assert end is not None
    told = end.state, end.reason, end.error, end.attempts
    assert told == (JobState.FAILED, FailReason.ERROR, "no video in it", 1)


@pytest.mark.parametrize("trouble", [Trouble.AWAY, Trouble.FAILED, Trouble.INPUT, Trouble.LOST])
async def test_the_end_is_told_until_it_could_be(trouble: Trouble) -> None:
    """Nothing that happens to a report changes how the job ended."""
    engine = Told([copied, copied, *[fails(trouble)] * 12])
    assert await JobFlow(TOLD, engine).run() == DONE
    assert [step for step, _ in engine.steps].count(Step.REPORT) == 13
    assert engine.pauses[:3] == [4.0, 8.0, 16.0]
    assert max(engine.pauses) == LONGEST_TELLING_PAUSE_S
    assert (engine.standing.result, engine.standing.waits_until) == (DONE, 0.0)


async def test_one_who_cannot_be_told_holds_up_no_other_and_has_no_other_told_again() -> None:
    engine = Told([copied, copied, fails(Trouble.AWAY), copied, fails(Trouble.AWAY)])
    await JobFlow(replace(SPEC, tells=("postgres", "callback")), engine).run()
    told = [order.whom for order in engine.orders if order.step is Step.REPORT]
    assert told == ["postgres", "callback", "postgres", "postgres"]
    assert engine.pauses == [4.0, 8.0]


async def test_however_late_it_is_told_the_end_has_one_time() -> None:
    engine = Told([copied, copied, *[fails(Trouble.AWAY)] * 3])
    engine.clock = iter([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    await JobFlow(TOLD, engine).run()
    ends = {order.end.at for order in engine.orders if order.end}
    assert ends == {2.0}  # the first is of the accepted answer


async def test_a_source_that_never_comes_back_is_given_up() -> None:
    engine = Told([copied, copied, *[fails(Trouble.AWAY)] * (MOST_REPORTS + 5)])
    assert await JobFlow(TOLD, engine).run() == DONE
    assert [step for step, _ in engine.steps].count(Step.REPORT) == MOST_REPORTS
    assert 6 * 86400 < sum(engine.pauses) < 8 * 86400


@pytest.mark.parametrize("trouble", [Trouble.AWAY, Trouble.FAILED])
async def test_a_recording_is_told_of_for_a_week_at_least(trouble: Trouble) -> None:
    spec = replace(SPEC, kind=JobKind.CALLBACK, max_attempts=MOST_TRIES)
    engine = Told([fails(trouble)] * 1000)
    with pytest.raises(JobFailedError) as caught:
        await JobFlow(spec, engine).run()
    assert caught.value.reason is FailReason.DEAD_LETTER
    assert 6.5 * 86400 < sum(engine.pauses) < 14 * 86400
    assert len(engine.orders) < 400  # each is part of the history


async def test_a_cancel_ends_the_telling_and_not_the_result() -> None:
    def cancelled(_order: Order) -> Answer:
        raise asyncio.CancelledError

    engine = Told([copied, copied, cancelled])
    assert await JobFlow(TOLD, engine).run() == DONE


async def test_who_asked_is_told_of_a_cancel() -> None:
    def cancelled(_order: Order) -> Answer:
        raise asyncio.CancelledError

    engine = Told([cancelled])
    with pytest.raises(asyncio.CancelledError):
        await JobFlow(TOLD, engine).run()
    end = engine.orders[-1].end
    assert end is not None
    assert (end.state, end.reason) == (JobState.FAILED, FailReason.CANCELLED)


async def test_where_it_is_published_is_part_of_the_result() -> None:
    def published(order: Order) -> Answer:
        return Answer(step=order.step, attempt=order.attempt, summary={"stored_in": ["s3://b/k"]})

    engine = Told([copied, published])
    assert await JobFlow(SPEC, engine).run() == DONE | {"stored_in": ["s3://b/k"]}
    assert engine.orders[-1].accepted_at == 1000.0
