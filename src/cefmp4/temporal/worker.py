"""Takes steps from the engine and has the host do them."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from typing import Any

import structlog
from temporalio import activity
from temporalio.client import AsyncActivityCancelledError, Client
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory
from temporalio.service import RPCError
from temporalio.worker import Worker

from cefmp4.errors import AccessDeniedError, ServerUnreachableError, UnknownJobError
from cefmp4.jobs.flow import Answer, Order, StepError, Trouble
from cefmp4.jobs.outcomes import Outcome, count_end
from cefmp4.jobs.steps import Host
from cefmp4.model.job import JobKind, JobProgress, Step
from cefmp4.temporal.asking import asking, keep_asking
from cefmp4.temporal.names import LIVES, activity_of, flow_queue, queue_of
from cefmp4.temporal.workflows import JOBS

log = structlog.get_logger()

HEARTBEAT_S = 1.0  # also how soon a cancel reaches the step, and how fresh its progress is
LOOKS = 2  # steps that need no slot, at the same moment
TELL_S = 5.0


class StepRunner:
    """One step: its heartbeat, and what the engine must know of its end."""

    def __init__(self, host: Host, client: Client) -> None:
        self._host = host
        self._client = client

    async def run(self, order: Order) -> Answer:
        ended = asyncio.Event()
        beating = asyncio.create_task(self._beat(beat := _Beat()), name="heartbeat")
        with structlog.contextvars.bound_contextvars(job_id=order.spec.id):
            try:
                answer = await self._host.perform(order, report=beat.report, ended=ended)
                await self._until_known_to_be_wanted(order)
                return answer
            except asyncio.CancelledError:
                ended.set()
                await self._tell_why(order)
                raise
            except StepError as error:
                raise _failure(order, error) from error
            finally:
                ended.set()
                beating.cancel()

    async def _beat(self, beat: "_Beat") -> None:
        while True:
            activity.heartbeat(beat.latest)
            await asyncio.sleep(HEARTBEAT_S)

    async def _until_known_to_be_wanted(self, order: Order) -> None:
        """Whoever was frozen, or cut off, for too long learns now that another has its place. An
        engine that is away is waited for: it would not hear the answer, either."""
        try:
            while not await self._is_heard(order):  # noqa: ASYNC110  # the engine tells nobody
                await asyncio.sleep(HEARTBEAT_S)
        except asyncio.CancelledError:
            await self._host.take_back(order)
            raise
        except UnknownJobError:
            await self._host.take_back(order)
            await self._tell_cut_off(order)
            raise StepError(Trouble.LOST, "another attempt has its place") from None

    async def _is_heard(self, order: Order) -> bool:
        """Raises UnknownJobError where the engine does not wait for the step any more."""
        handle = self._client.get_async_activity_handle(task_token=activity.info().task_token)
        try:
            async with asking(self._client, order.spec.id):
                await handle.heartbeat()
        except ServerUnreachableError:
            return False
        except (AsyncActivityCancelledError, AccessDeniedError, RPCError):
            pass  # it is done, so it may as well count
        return True

    async def _tell_why(self, order: Order) -> None:
        details = activity.cancellation_details()
        if details is None:
            return
        if details.worker_shutdown:
            count_end(order, Outcome.RELEASED)
            raise _failure(order, StepError(Trouble.HANDED_BACK, "the worker was stopped"))
        if details.not_found:
            await self._tell_cut_off(order)

    async def _tell_cut_off(self, order: Order) -> None:
        """So that the loss, which was none of the job's fault, does not count."""
        log.warning("a step was cut off from the engine", attempt=order.attempt)
        count_end(order, Outcome.FENCED)
        with suppress(RPCError, TimeoutError):
            async with asyncio.timeout(TELL_S):
                await self._client.get_workflow_handle(order.spec.id).signal(LIVES, order.attempt)


class _Beat:
    def __init__(self) -> None:
        self.latest = JobProgress()

    def report(self, progress: JobProgress) -> None:
        self.latest = progress


def _failure(order: Order, error: StepError) -> ApplicationError:
    """The flow believes the details, which are signed. It is told already, so that the engine's
    client needs no lines of its own for it."""
    details = [error.trouble, order.step, order.attempt, str(error)]
    return ApplicationError(
        str(error),
        details,
        type=error.trouble,
        non_retryable=True,
        category=ApplicationErrorCategory.BENIGN,
    )


@asynccontextmanager
async def working(client: Client, host: Host, *, drain_s: float) -> AsyncIterator[None]:
    """Takes steps until the context ends; what runs then longer than `drain_s` is handed back."""
    with without_collections():
        workers = list(_workers_of(client, host, drain_s))
    async with asyncio.TaskGroup() as group:
        for worker in workers:
            group.create_task(worker.run(), name=f"worker of {worker.task_queue}")
        watching = group.create_task(keep_asking(client), name="is Temporal there?")
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.gather(*(worker.shutdown() for worker in workers))


@contextmanager
def without_collections() -> Iterator[None]:
    """A worker imports its workflows once more. Python 3.11 breaks an import (KeyError) where a
    collection comes in its midst, of an object whose end imports something, too."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _workers_of(client: Client, host: Host, drain_s: float) -> Iterator[Worker]:
    """One for each queue that this host serves."""
    runner = StepRunner(host, client)
    for kind, procedure in host.procedures.items():
        yield Worker(
            client,
            task_queue=flow_queue(kind),
            workflows=[JOBS[kind]],
            max_cached_workflows=0,  # a worker that is frozen keeps none
        )
        looks = [step for step in Step if step is not Step.ENCODE]
        encodes = host.slots.total if procedure.encodes else 0
        for steps, room in ((looks, LOOKS), ([Step.ENCODE], encodes)):
            if room:
                yield Worker(
                    client,
                    task_queue=queue_of(kind, steps[0]),
                    activities=[_activity(kind, step, runner) for step in steps],
                    max_concurrent_activities=room,
                    graceful_shutdown_timeout=timedelta(seconds=drain_s),
                    max_heartbeat_throttle_interval=timedelta(seconds=HEARTBEAT_S),
                    default_heartbeat_throttle_interval=timedelta(seconds=HEARTBEAT_S),
                    disable_eager_activity_execution=True,  # the queue's order counts
                )


def _activity(kind: JobKind, step: Step, runner: StepRunner) -> Callable[[Order], Any]:
    @activity.defn(name=activity_of(kind, step))
    async def perform(order: Order) -> Answer:
        if (order.spec.kind, order.step) != (kind, step):
            raise _failure(order, StepError(Trouble.INPUT, "an order for another step"))
        return await runner.run(order)

    return perform
