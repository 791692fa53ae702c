"""Job flows as workflows. A name here stays what it is for as long as jobs run under it: another
flow gets another name."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import Priority, RawValue, RetryPolicy
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    is_cancelled_exception,
)
from temporalio.exceptions import (
    TimeoutError as StepTimeoutError,
)

with workflow.unsafe.imports_passed_through():
    from cefmp4.jobs.flow import (
        Answer,
        JobFailedError,
        JobFlow,
        Order,
        Standing,
        StepError,
        Trouble,
    )
    from cefmp4.model.job import JobKind, JobSpec, Step
    from cefmp4.temporal.names import LIVES, STANDING, WORKFLOWS, activity_of, queue_of
    from cefmp4.temporal.signing import text_in

# A worker that was killed or is frozen is found out after that; its step runs elsewhere then.
HEARTBEAT_TIMEOUT = timedelta(seconds=6)
LONGEST_STEP = timedelta(days=500)  # HLS_TIMEOUT_HOURS is at most 417


# What is made is seen before others are looked at, however many wait for that.
_FIRST = Priority(priority_key=1)
_FIRST_STEPS = (Step.PUBLISH, Step.DISCARD, Step.REPORT)


class _Carrier:
    """What carries a flow inside of a workflow."""

    async def perform(self, order: Order) -> Answer:
        kind = order.spec.kind
        try:
            answer: Answer = await workflow.execute_activity(
                activity_of(kind, order.step),
                order,
                result_type=Answer,
                task_queue=queue_of(kind, order.step),
                start_to_close_timeout=LONGEST_STEP,
                heartbeat_timeout=HEARTBEAT_TIMEOUT,
                retry_policy=RetryPolicy(maximum_attempts=1),  # the flow decides
                cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
                priority=_FIRST if order.step in _FIRST_STEPS else Priority(),
            )
            return answer
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise asyncio.CancelledError from None
            raise _step_error(order, error.cause) from None

    async def pause(self, seconds: float) -> None:
        await workflow.sleep(seconds)

    def now(self) -> float:
        return workflow.time()

    def new_name(self) -> str:
        return f"a{workflow.uuid4().hex[:16]}"

    def show(self, standing: Standing) -> None:
        workflow.upsert_memo({STANDING: standing})


def _step_error(order: Order, cause: BaseException | None) -> StepError:
    """A failure that our workers did not sign, for this order, says nothing of the job."""
    if isinstance(cause, StepTimeoutError):
        return StepError(Trouble.LOST, "the worker died")
    details = cause.details if isinstance(cause, ApplicationError) else ()
    match details:
        case [[trouble, order.step, order.attempt, message]]:
            return StepError(Trouble(trouble), message)
        case _:
            return StepError(Trouble.AWAY, f"no worker of ours says why: {cause}")


class _Job:
    """What all kinds of jobs have in common: today, how they go."""

    def __init__(self, spec: JobSpec) -> None:
        self._flow = JobFlow(spec, _Carrier())

    async def _go(self) -> dict[str, Any]:
        try:
            return await self._flow.run()
        except JobFailedError as error:
            raise ApplicationError(str(error), type=error.reason, non_retryable=True) from None

    @workflow.signal(dynamic=True)
    def heard(self, name: str, said: Sequence[RawValue]) -> None:
        """Whoever reaches the engine may say anything here: what is ours is one signed word."""
        if name == LIVES and len(said) == 1 and (attempt := text_in(said[0].payload)):
            self._flow.lives(attempt)


# A TypeError: what somebody else ordered may have any shape, and would be looked at for ever.
@workflow.defn(name=WORKFLOWS[JobKind.HLS], failure_exception_types=[TypeError])
class HlsJob(_Job):
    @workflow.init
    def __init__(self, spec: JobSpec) -> None:
        super().__init__(spec)

    @workflow.run
    async def run(self, spec: JobSpec) -> dict[str, Any]:
        return await self._go()


@workflow.defn(name=WORKFLOWS[JobKind.CALLBACK], failure_exception_types=[TypeError])
class CallbackJob(_Job):
    @workflow.init
    def __init__(self, spec: JobSpec) -> None:
        super().__init__(spec)

    @workflow.run
    async def run(self, spec: JobSpec) -> dict[str, Any]:
        return await self._go()


JOBS: dict[JobKind, type[HlsJob] | type[CallbackJob]] = {
    JobKind.HLS: HlsJob,
    JobKind.CALLBACK: CallbackJob,
}
