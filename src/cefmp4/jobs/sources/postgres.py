"""Jobs from a table in Postgres: rows that are pending are begun, and changed when they end."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import ClassVar

import structlog

from cefmp4.config.settings import Settings
from cefmp4.errors import InvariantError, TransientError
from cefmp4.model.job import JobEnd
from cefmp4.ports.sources import Offer
from cefmp4.storage.postgres.job_rows import Claim, Ending, JobRows, RowRefusedError, open_job_rows
from cefmp4.storage.postgres.jobs_table import CHANNEL
from cefmp4.storage.postgres.link import Postgres
from cefmp4.storage.postgres.shared import shared_postgres, when_reachable, while_running
from cefmp4.tasks import cancel_all

log = structlog.get_logger()

STALE_LOOK_S = 30.0  # between two looks for rows that were begun and then forgotten
SET_ASIDE_S = 600.0  # a row that the database does not let us change
MOST_ASIDE = 100  # with more of them it is no row, but the table that is wrong


class PostgresSource:
    name: ClassVar[str] = "postgres"
    wants_reports: ClassVar[bool] = True
    repeats_mean_again: ClassVar[bool] = True

    def __init__(
        self,
        postgres: Postgres,
        rows: JobRows,
        *,
        poll_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.place = rows.place
        self._postgres = postgres
        self._rows = rows
        self._poll_s = poll_s
        self._clock = clock
        self._claim: Claim | None = None
        self._stale_look_at = clock()
        self._aside: dict[str, float] = {}  # until when, by ref
        self._told = asyncio.Event()
        self._listening: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<PostgresSource {self.place}>"

    @asynccontextmanager
    async def offers(self, most: int) -> AsyncIterator[Sequence[Offer]]:
        self._told.clear()
        with_stale = self._clock() >= self._stale_look_at
        claiming = self._rows.claimed(most, but=self._set_aside(), with_stale=with_stale)
        with while_running():
            async with claiming as claim:
                self._claim = claim
                try:
                    yield [Offer(ref=row.ref, jobs=(row.asked,)) for row in claim.rows]
                finally:
                    self._claim = None
        if with_stale and len(claim.rows) < most:
            self._stale_look_at = self._clock() + STALE_LOOK_S

    async def accept(self, offer: Offer, job_ids: Sequence[str]) -> None:
        with self._setting_aside(offer):
            await self._claimed().begun(offer.ref, ",".join(job_ids))

    async def refuse(self, offer: Offer, fault: str) -> None:
        with self._setting_aside(offer):
            await self._claimed().refused(offer.ref, fault)

    async def until_more(self) -> None:
        """A worker that only tells of ends needs no connection for this."""
        if self._listening is None:
            self._listening = asyncio.create_task(self._listen(), name="jobs that are put in")
        if self._listening.done():
            await self._listening  # it ends by a bug alone
        with suppress(TimeoutError):
            async with asyncio.timeout(self._poll_s):
                await self._told.wait()

    async def report(self, end: JobEnd) -> None:
        ending = Ending(
            ref=end.spec.ref,
            job_id=end.spec.id,
            state="done" if end.is_complete else "failed",
            attempts=end.attempts,
            error=end.error,
            result=end.result,
        )
        with while_running():
            is_news = await self._rows.end(ending)
        if not is_news:
            log.debug("a row knows of the end, or has none", ref=end.spec.ref, job_id=end.spec.id)

    async def waiting(self) -> int:
        with while_running():
            return await self._rows.count_pending()

    async def stop_listening(self) -> None:
        if self._listening:
            await cancel_all([self._listening])

    async def _listen(self) -> None:
        async with aclosing(self._postgres.listen(CHANNEL)) as told:
            async for _ in told:
                self._told.set()

    def _claimed(self) -> Claim:
        if self._claim is None:
            raise InvariantError("a row is dealt with that is not claimed")
        return self._claim

    @contextmanager
    def _setting_aside(self, offer: Offer) -> Iterator[None]:
        """Else it would be the first of each claim, and hold up all others."""
        try:
            yield
        except RowRefusedError as error:
            if len(self._aside) >= MOST_ASIDE:
                raise TransientError(f"no row of {self.place} can be changed: {error}") from error
            log.warning("a row cannot be changed", ref=offer.ref, reason=str(error))
            self._aside[offer.ref] = self._clock() + SET_ASIDE_S

    def _set_aside(self) -> list[str]:
        now = self._clock()
        self._aside = {ref: until for ref, until in self._aside.items() if until > now}
        return list(self._aside)


@asynccontextmanager
async def open_source(settings: Settings) -> AsyncIterator[PostgresSource]:
    async with shared_postgres(settings) as postgres:
        table, names = settings.postgres_jobs_table, settings.postgres_jobs_names
        rows = await when_reachable(
            settings, partial(open_job_rows, postgres, table=table, names=names)
        )
        source = PostgresSource(postgres, rows, poll_s=settings.worker_poll_ms / 1000)
        try:
            yield source
        finally:
            await source.stop_listening()
