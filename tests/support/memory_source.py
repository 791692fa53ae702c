"""A source of jobs in memory, with the semantics of a table: what is claimed and not dealt with is
offered again."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

from cefmp4.model.job import JobEnd
from cefmp4.ports.sources import Offer


@dataclass
class Row:
    asked: dict[str, Any]
    state: str = "pending"
    fault: str = ""
    job_ids: tuple[str, ...] = ()
    end: JobEnd | None = None


@dataclass
class MemorySource:
    name: ClassVar[str] = "memory"
    wants_reports: ClassVar[bool] = True
    repeats_mean_again: ClassVar[bool] = True
    place: str = "here"
    rows: dict[str, Row] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    claimed: set[str] = field(default_factory=set)

    def put(self, asked: dict[str, Any]) -> str:
        ref = str(len(self.rows) + 1)
        self.rows[ref] = Row(asked)
        self.changed.set()
        return ref

    def put_back(self, ref: str) -> None:
        self.rows[ref].state = "pending"
        self.changed.set()

    @asynccontextmanager
    async def offers(self, most: int) -> AsyncIterator[Sequence[Offer]]:
        refs = [
            ref
            for ref, row in self.rows.items()
            if row.state == "pending" and ref not in self.claimed
        ][:most]
        self.claimed.update(refs)
        try:
            await asyncio.sleep(0)
            yield [Offer(ref=ref, jobs=(self.rows[ref].asked,)) for ref in refs]
        finally:
            self.claimed.difference_update(refs)

    async def accept(self, offer: Offer, job_ids: Sequence[str]) -> None:
        row = self.rows[offer.ref]
        row.job_ids = tuple(job_ids)
        if row.state == "pending":
            row.state = "processing"

    async def refuse(self, offer: Offer, fault: str) -> None:
        row = self.rows[offer.ref]
        row.state, row.fault = "failed", fault

    async def until_more(self) -> None:
        self.changed.clear()
        await self.changed.wait()

    async def report(self, end: JobEnd) -> None:
        row = self.rows.get(end.spec.ref)
        if row is not None:
            row.state, row.end = ("done" if end.is_complete else "failed"), end

    async def waiting(self) -> int:
        return sum(row.state == "pending" for row in self.rows.values())
