"""Ledger and engine together: what is written is also delivered."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from cefmp4.errors import TransientError
from cefmp4.jobs.engine import REDELIVERY_S, Engine, open_engine
from cefmp4.jobs.ledger import RedisLedger, Ticket, open_ledger
from cefmp4.model.job import Job, JobSpec, JobState, Lane
from cefmp4.reachability import level_of

log = structlog.get_logger()


class JobQueue:
    """The ledger is written first. A ticket that could not be sent then is sent by a worker's next
    look at what is ready: the job is late by seconds, not lost."""

    def __init__(self, ledger: RedisLedger, engine: Engine) -> None:
        self.ledger = ledger
        self.engine = engine

    async def submit(self, spec: JobSpec) -> bool:
        """False: the job is known already."""
        ticket = await self.ledger.submit(spec)
        if ticket is not None:
            log.info("job submitted", job_id=spec.id, kind=spec.kind)
            await self.deliver(ticket)
        return ticket is not None

    async def retry(self, job_id: str) -> None:
        await self.deliver(await self.ledger.retry(job_id))

    async def cancel(self, job_id: str) -> JobState:
        return await self.ledger.cancel(job_id)

    async def requeue(
        self,
        job: Job,
        *,
        error: str,
        delay_s: float = 0.0,
        gives_back: bool = False,
        wrote_nothing: bool = False,
        lane: Lane | None = None,
    ) -> bool:
        """False: it will not be tried again, or it is not ours."""
        ticket = await self.ledger.requeue(
            job,
            error=error,
            delay_s=delay_s,
            gives_back=gives_back,
            wrote_nothing=wrote_nothing,
            lane=lane,
        )
        if ticket is not None:
            await self.deliver(ticket, delay_s)
        return ticket is not None

    async def deliver(self, ticket: Ticket, delay_s: float = 0.0) -> None:
        try:
            await self.engine.enqueue([ticket], delay_s)
        except TransientError as error:
            log.log(level_of(error), "a ticket is late", job_id=ticket.job_id, reason=str(error))


@asynccontextmanager
async def open_jobs(
    url: str, *, lease_seconds: float, redelivery_s: float = REDELIVERY_S
) -> AsyncIterator[JobQueue]:
    async with (
        open_ledger(url, lease_seconds=lease_seconds) as ledger,
        open_engine(url, redelivery_s=redelivery_s) as engine,
    ):
        yield JobQueue(ledger, engine)
