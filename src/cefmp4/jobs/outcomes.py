"""What the worker counts of steps and jobs. The flow knows how a job ends, and tells the step that
clears up; a worker that was killed counts nothing."""

from enum import StrEnum

from cefmp4 import metrics
from cefmp4.errors import ProgramMissingError
from cefmp4.jobs.flow import Answer, Order, Trouble
from cefmp4.jobs.workplace import NoRoomError
from cefmp4.model.job import Step


class StepOutcome(StrEnum):
    DONE = "done"
    FAILED = "failed"
    AWAY = "away"  # a server is, or the host cannot
    CANCELLED = "cancelled"  # or handed back


class Outcome(StrEnum):
    """How an attempt ended, beside the reasons for which a job fails."""

    COMPLETE = "complete"
    RETRIED = "retried"
    RELEASED = "released"  # its worker stops
    NO_ROOM = "no_room"
    NO_PROGRAM = "no_program"
    SERVER_AWAY = "server_away"
    FENCED = "fenced"  # another attempt counts


def count_answer(order: Order, answer: Answer) -> None:
    count_step(order, StepOutcome.DONE, answer.seconds)
    if order.step is Step.DISCARD and order.failed_as is not None:
        metrics.job_results.labels(order.spec.kind, order.failed_as).inc()
    elif order.step is Step.PUBLISH:
        seconds = order.seconds + answer.seconds
        metrics.job_duration.labels(order.spec.kind).observe(seconds)
        count_end(order, Outcome.COMPLETE)
    elif answer.is_published:
        count_end(order, Outcome.COMPLETE)


def count_trouble(order: Order, trouble: Trouble, error: Exception, seconds: float) -> None:
    is_away = trouble is Trouble.AWAY
    count_step(order, StepOutcome.AWAY if is_away else StepOutcome.FAILED, seconds)
    if order.step is Step.REPORT:
        return
    if isinstance(error, NoRoomError):
        count_end(order, Outcome.NO_ROOM)
    elif isinstance(error, ProgramMissingError):
        count_end(order, Outcome.NO_PROGRAM)
    elif is_away:
        count_end(order, Outcome.SERVER_AWAY)
    elif trouble is Trouble.FAILED and not order.is_last and order.step is not Step.DISCARD:
        count_end(order, Outcome.RETRIED)


def count_step(order: Order, outcome: StepOutcome, seconds: float) -> None:
    metrics.job_step_duration.labels(order.spec.kind, order.step, outcome).observe(seconds)


def count_end(order: Order, outcome: Outcome) -> None:
    metrics.job_results.labels(order.spec.kind, outcome).inc()
