"""Jobs that do what their parameters say, for tests of what surrounds them."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cefmp4.errors import PermanentError, ServerUnreachableError, TransientError
from cefmp4.jobs.slots import Slots
from cefmp4.jobs.steps import Accepted, Host, JobProcedure, Made, NeedsSlotError, StepContext
from cefmp4.jobs.workplace import open_workplace
from cefmp4.model.job import Job, JobKind, JobProgress, JobSpec, JobState, SlotKind
from cefmp4.ports.jobs import JobDesk

WAIT_S = 20.0


@dataclass
class Pretence:
    error: str = ""  # of a bad input; "": as its job says
    made: list[tuple[str, str]] = field(default_factory=list)
    published: list[tuple[str, str]] = field(default_factory=list)
    discarded: list[tuple[str, str]] = field(default_factory=list)
    goes_on: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def procedure(self) -> JobProcedure:
        return JobProcedure(make=self.make, publish=self.publish, discard=self.discard)

    async def make(self, context: StepContext) -> Made:
        params = context.spec.params
        if context.slot is None and "copy" not in params:
            raise NeedsSlotError
        self.made.append((context.spec.id, context.attempt))
        tries = [one for one, _ in self.made].count(context.spec.id)
        if tries <= int(params.get("away", "0")):
            raise ServerUnreachableError("S3 does not answer")
        if tries <= int(params.get("fails", "0")):
            raise TransientError("the encoder is busy")
        if "bad" in params:
            raise PermanentError(self.error or params["bad"])
        if "waits" in params:
            context.report(JobProgress(percent=42.0, speed=2.5, eta_seconds=90, step="encode"))
            await self.goes_on.wait()
        summary = {"by": context.attempt} | {
            name: params[name] for name in ("poster_key",) if name in params
        }
        return Made(summary=summary, is_published="old" in params)

    async def publish(self, spec: JobSpec, accepted: Accepted) -> dict[str, Any]:
        self.published.append((spec.id, accepted.attempt))
        return {}

    async def discard(self, spec: JobSpec, attempt: str) -> None:
        self.discarded.append((spec.id, attempt))


@contextmanager
def pretending(folder: Path, pretence: Pretence) -> Iterator[Host]:
    """A host with one slot."""
    with open_workplace(folder) as workplace:
        yield Host(
            procedures={JobKind.HLS: pretence.procedure},
            slots=Slots({SlotKind.CPU: 1}),
            workplace=workplace,
        )


async def until(question: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not await question():  # noqa: ASYNC110  # the engine tells nobody
            await asyncio.sleep(0.02)


async def in_state(desk: JobDesk, job_id: str, state: JobState) -> Job:
    async def is_so() -> bool:
        return (await desk.get(job_id)).state is state

    await until(is_so)
    return await desk.get(job_id)


async def with_progress(desk: JobDesk, job_id: str) -> Job:
    async def is_told() -> bool:
        progress = (await desk.get(job_id)).progress
        return progress is not None and progress.percent > 0

    await until(is_told)
    return await desk.get(job_id)
