"""Which jobs a host takes, and when: by slots of the GPU and of the CPU."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.support.job_worker import Workshop, until, workshop

from cefmp4.jobs.steps import Accepted, JobProcedure, Made, NeedsSlotError, StepContext
from cefmp4.model.job import JobInput, JobKind, JobProgress, JobSpec, SlotKind

__all__ = ["workshop"]

pytestmark = pytest.mark.integration


@dataclass
class Encodes:
    """Jobs that hold their slots until they are let go."""

    begun: list[tuple[str, SlotKind | None]] = field(default_factory=list)
    goes_on: dict[str, asyncio.Event] = field(default_factory=dict)

    @property
    def procedure(self) -> JobProcedure:
        return JobProcedure(make=self.make)

    async def make(self, context: StepContext) -> Made:
        subject = context.spec.subject
        if context.slot is None and not subject.startswith("copy"):
            raise NeedsSlotError
        self.begun.append((subject, context.slot))
        context.report(JobProgress(percent=50.0))
        if context.slot:
            await self.goes_on.setdefault(subject, asyncio.Event()).wait()
        return Made()

    def let_go(self, *subjects: str) -> None:
        for subject in subjects:
            self.goes_on.setdefault(subject, asyncio.Event()).set()

    def has_begun(self, count: int) -> Callable[[], Awaitable[bool]]:
        async def is_so() -> bool:
            return len(self.begun) >= count

        return is_so


def spec(name: str) -> JobSpec:
    return JobSpec(subject=name, kind=JobKind.HLS, input=JobInput(key=name))


async def test_a_gpu_slot_comes_first_and_the_cpu_where_that_is_taken(workshop: Workshop) -> None:
    encodes, slots = Encodes(), {SlotKind.CPU: 1, SlotKind.GPU: 1}
    async with workshop.worker(encodes.procedure, slots=slots):
        for number, slot in enumerate((SlotKind.GPU, SlotKind.CPU)):
            await workshop.desk.submit(spec(f"e{number}"))
            await until(encodes.has_begun(number + 1), 20, f"encode on {slot}")
        await workshop.desk.submit(spec("e2"))
        await workshop.desk.submit(spec("copy"))
        assert (await workshop.ended("copy-hls")).slot == ""
        assert encodes.begun == [("e0", SlotKind.GPU), ("e1", SlotKind.CPU), ("copy", None)]

        async def is_told() -> bool:
            jobs = [await workshop.desk.get(f"e{number}-hls") for number in range(3)]
            return [job.slot for job in jobs] == ["gpu", "cpu", ""] and jobs[2].is_queued

        await until(is_told, 10, "the slots are told")
        encodes.let_go("e0")
        await until(encodes.has_begun(4), 20, "the next encode")
        assert encodes.begun[3] == ("e2", SlotKind.GPU)
        encodes.let_go("e1", "e2")
        for number in range(3):
            assert (await workshop.ended(f"e{number}-hls")).is_complete


async def test_what_is_made_is_published_before_others_are_looked_at(workshop: Workshop) -> None:
    done = list[str]()

    async def make(context: StepContext) -> Made:
        done.append("made")
        await asyncio.sleep(0.3)  # as a copy of a recording does
        return Made()

    async def publish(_spec: JobSpec, _accepted: Accepted) -> dict[str, Any]:
        done.append("published")
        return {}

    for number in range(30):
        await workshop.desk.submit(spec(f"copy{number}"))
    async with workshop.worker(JobProcedure(make=make, publish=publish)):
        for number in range(30):
            await workshop.ended(f"copy{number}-hls")
    assert done.index("published") < 20, done  # a busy machine is slow to order it


async def test_a_host_without_slots_takes_no_encode(workshop: Workshop) -> None:
    """It looks, and copies what can be copied."""
    without, has = Encodes(), Encodes()
    async with workshop.worker(without.procedure, name="without", slots={}):
        await workshop.desk.submit(spec("encode"))
        await workshop.desk.submit(spec("copy"))
        assert (await workshop.ended("copy-hls")).is_complete

        async def waits_for_a_slot() -> bool:
            job = await workshop.desk.get("encode-hls")
            return job.step == "encode" and job.is_queued

        await until(waits_for_a_slot, 20, "the look")
        async with workshop.worker(has.procedure, name="has"):
            await until(has.has_begun(1), 20, "the encode")
            has.let_go("encode")
            assert (await workshop.ended("encode-hls")).attempts == 1
    assert without.begun == [("copy", None)]
    assert has.begun == [("encode", SlotKind.CPU)]
