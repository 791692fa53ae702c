"""The engine that delivers tickets to workers: docket, behind a narrow protocol. A ticket says that
a job became ready; which job its holder gets is decided by the ledger, so a ticket that comes
twice, late or never does no harm. Only job ids go through docket, and no more comes out of it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Protocol

import structlog
from docket import Docket, TaskCall
from redis.exceptions import RedisError

from cefmp4.errors import TransientError
from cefmp4.jobs.docket_guard import TASK, GuardedWorker, empty, is_unworkable
from cefmp4.jobs.ledger import Ticket
from cefmp4.model.job import Lane
from cefmp4.retry import bounded
from cefmp4.storage.redis.link import translated_error

log = structlog.get_logger()

REDELIVERY_S = 15.0  # a ticket whose holder died before it began a job goes to another
POLL_S = 0.5  # how soon docket looks again when all slots are taken; else tickets come at once
SCHEDULING_S = 1.0  # how exactly the end of a back-off is met
RECONNECT_S = 1.0
_HEARTBEAT_S = 5.0

TicketHandler = Callable[[Lane, str], Awaitable[None]]


class Engine(Protocol):
    async def enqueue(self, tickets: Iterable[Ticket], delay_s: float = 0) -> None:
        """A ticket that is on its way already stays as it is."""
        ...

    def set_room(self, lane: Lane, room: int) -> None:
        """How many more jobs of that lane this process could take right now."""
        ...

    async def run(
        self, lanes: Sequence[Lane], handler: TicketHandler, *, name: str, stop: asyncio.Event
    ) -> None:
        """Hands tickets to `handler` until `stop`; then it waits for those handlers."""
        ...


class DocketEngine:
    """One docket per lane, so that a worker takes only what it can work on. docket counts how many
    tickets it has handed out; we tell it how many more there is room for."""

    def __init__(self, dockets: dict[Lane, Docket], *, redelivery_s: float) -> None:
        self._dockets = dockets
        self._redelivery = timedelta(seconds=redelivery_s)
        self._workers: dict[Lane, GuardedWorker] = {}
        self._held = dict.fromkeys(Lane, 0)
        self._room = dict.fromkeys(Lane, 0)

    def __repr__(self) -> str:
        return f"<DocketEngine held={self._held} room={self._room}>"

    async def enqueue(self, tickets: Iterable[Ticket], delay_s: float = 0) -> None:
        when = datetime.now(UTC) + timedelta(seconds=delay_s)
        calls: dict[Lane, list[TaskCall]] = {}
        for ticket in tickets:
            call = self._dockets[ticket.lane].call(
                TASK, when=when, key=f"{ticket.job_id}#{ticket.round}"
            )
            calls.setdefault(ticket.lane, []).append(call(ticket.job_id))
        for lane, of_lane in calls.items():
            await bounded(partial(self._add, lane, of_lane), server="redis", attempts=3)

    async def _add(self, lane: Lane, calls: list[TaskCall]) -> None:
        """Safe to repeat: a key that is known stays as it is."""
        docket = self._dockets[lane]
        try:
            for sent in await docket.add_many(calls):
                if sent.schedule_exception:
                    raise sent.schedule_exception
        except (RedisError, OSError) as error:
            if not is_unworkable(error):
                raise translated_error(error) from error
            await empty(docket, error)
            raise TransientError("tickets could not be sent") from error

    def set_room(self, lane: Lane, room: int) -> None:
        self._room[lane] = room
        self._adjust(lane)

    async def run(
        self, lanes: Sequence[Lane], handler: TicketHandler, *, name: str, stop: asyncio.Event
    ) -> None:
        async with asyncio.TaskGroup() as loops:
            for lane in lanes:
                self._dockets[lane].register(self._holding(lane, handler), names=[TASK])
                self._workers[lane] = worker = GuardedWorker(
                    self._dockets[lane],
                    name=name,
                    concurrency=self._room[lane],
                    redelivery_timeout=self._redelivery,
                    reconnection_delay=timedelta(seconds=RECONNECT_S),
                    minimum_check_interval=timedelta(seconds=POLL_S),
                    scheduling_resolution=timedelta(seconds=SCHEDULING_S),
                    schedule_automatic_tasks=False,
                )
                loops.create_task(_serve(worker, stop), name=f"tickets {lane}")

    def _holding(self, lane: Lane, handler: TicketHandler) -> Callable[[str], Awaitable[None]]:
        async def work(job_id: str) -> None:
            self._held[lane] += 1
            self._adjust(lane)
            try:
                await handler(lane, job_id)
            finally:
                self._held[lane] -= 1
                self._adjust(lane)

        return work

    def _adjust(self, lane: Lane) -> None:
        if (worker := self._workers.get(lane)) is not None:
            worker.concurrency = self._held[lane] + self._room[lane]


async def _serve(worker: GuardedWorker, stop: asyncio.Event) -> None:
    """Leaving the worker's context is what stops it. A cancel would not do: the Redis client is
    known to swallow one now and then, and docket would go on for ever."""
    async with worker:
        serving = asyncio.create_task(worker.run_forever(), name="docket")
        stopping = asyncio.create_task(stop.wait(), name="stop")
        try:
            await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
    await serving


async def _no_worker_here(job_id: str) -> None:
    raise AssertionError(f"{job_id}: a process that only submits never works")


@asynccontextmanager
async def open_engine(
    url: str, *, redelivery_s: float = REDELIVERY_S
) -> AsyncIterator[DocketEngine]:
    """Raises ServerUnreachableError where Redis is not there."""
    async with AsyncExitStack() as stack:
        dockets: dict[Lane, Docket] = {}
        try:
            for lane in Lane:
                docket = Docket(
                    name=f"cefmp4-{lane}",
                    url=url,
                    heartbeat_interval=timedelta(seconds=_HEARTBEAT_S),
                    execution_ttl=timedelta(0),  # the ledger remembers what there is to remember
                )
                docket.register(_no_worker_here, names=[TASK])
                dockets[lane] = await stack.enter_async_context(docket)
        except (RedisError, OSError) as error:
            raise translated_error(error) from error
        yield DocketEngine(dockets, redelivery_s=redelivery_s)
