"""What a step of a job on this host comes to: its answer, its trouble, and what metrics tell."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from cefmp4 import metrics
from cefmp4.errors import (
    AccessDeniedError,
    PermanentError,
    ProgramMissingError,
    ServerUnreachableError,
    TransientError,
)
from cefmp4.jobs.flow import Answer, Order, StepError, Trouble
from cefmp4.jobs.slots import Slots
from cefmp4.jobs.steps import Host, JobProcedure, Made, NeedsSlotError, StepContext
from cefmp4.jobs.workplace import NoRoomError, Workplace, open_workplace
from cefmp4.model.job import (
    FailReason,
    JobEnd,
    JobInput,
    JobKind,
    JobProgress,
    JobSpec,
    JobState,
    SlotKind,
    Step,
)

SPEC = JobSpec(subject="s", kind=JobKind.HLS, input=JobInput(key="k"))


@dataclass
class Site:
    workplace: Workplace
    reports: list[JobProgress]
    discarded: list[str]
    told: list[str]

    async def perform(self, step: Step, does: object, reason: FailReason | None = None) -> Answer:
        async def make(context: StepContext) -> Made:
            if isinstance(does, Exception):
                raise does
            context.report(JobProgress(percent=5.0, speed=3.0, fps=75.0))
            return does if isinstance(does, Made) else Made()

        async def discard(_spec: JobSpec, attempt: str) -> None:
            self.discarded.append(attempt)

        host = Host(
            procedures={JobKind.HLS: JobProcedure(make=make, discard=discard)},
            slots=Slots({SlotKind.CPU: 1}),
            workplace=self.workplace,
            on_complete=lambda spec: self.told.append(spec.id),
        )
        order = Order(step=step, spec=SPEC, attempt="a1", attempts=("a1",), failed_as=reason)
        return await host.perform(order, report=self.reports.append, ended=asyncio.Event())


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with open_workplace(tmp_path / "work") as workplace:
        yield Site(workplace, [], [], [])


@pytest.mark.parametrize(
    ("step", "made", "told"),
    [
        (Step.LOOK, Made(is_published=True), ["s-hls"]),  # by an earlier job
        (Step.LOOK, Made(), []),
        (Step.PUBLISH, None, ["s-hls"]),
    ],
)
async def test_what_can_be_watched_is_told(
    site: Site, step: Step, made: Made | None, told: list[str]
) -> None:
    await site.perform(step, made)
    assert site.told == told


class Counts:
    """By how much each outcome grew."""

    def __init__(self) -> None:
        self._before = self._now()

    def _now(self) -> dict[str, float]:
        counts = metrics.job_results
        return {one: counts.labels("hls", one)._value.get() for one in metrics.JOB_OUTCOMES}

    @property
    def grown(self) -> dict[str, float]:
        now = self._now()
        return {one: now[one] - was for one, was in self._before.items() if now[one] != was}


@pytest.mark.parametrize(
    ("error", "trouble", "outcome"),
    [
        (ServerUnreachableError("away"), Trouble.AWAY, "server_away"),
        (AccessDeniedError("no"), Trouble.AWAY, "server_away"),
        (NoRoomError("full"), Trouble.AWAY, "no_room"),
        (ProgramMissingError("ffmpeg"), Trouble.AWAY, "no_program"),
        (TransientError("busy"), Trouble.FAILED, "retried"),
        (ValueError("a mistake of ours"), Trouble.FAILED, "retried"),
        (PermanentError("no video"), Trouble.INPUT, ""),
    ],
)
async def test_trouble_is_told_apart_and_what_was_written_goes(
    site: Site, error: Exception, trouble: Trouble, outcome: str
) -> None:
    counts = Counts()
    with pytest.raises(StepError, match=str(error)) as caught:
        await site.perform(Step.ENCODE, error)
    assert caught.value.trouble is trouble
    assert site.discarded == ["a1"]
    assert set(counts.grown) == {outcome} - {""}


async def test_a_look_that_needs_a_slot_says_so(site: Site) -> None:
    counts = Counts()
    answer = await site.perform(Step.LOOK, NeedsSlotError())
    assert (answer.needs_slot, site.discarded) == (True, [])
    assert counts.grown == {}


async def test_a_job_is_counted_once_whatever_its_end(site: Site) -> None:
    counts = Counts()
    await site.perform(Step.ENCODE, Made())
    assert counts.grown == {}
    await site.perform(Step.PUBLISH, None)
    await site.perform(Step.LOOK, Made(is_published=True))
    assert counts.grown == {"complete": 2}
    for reason in FailReason:
        counts = Counts()
        await site.perform(Step.DISCARD, None, reason)
        assert counts.grown == {reason: 1}


async def test_an_encode_tells_its_slot_and_how_fast_it_is(site: Site) -> None:
    await site.perform(Step.ENCODE, Made())
    assert [report.slot for report in site.reports] == [SlotKind.CPU] * 2
    assert metrics.encode_speed.labels("cpu")._value.get() == 3.0
    assert metrics.encode_fps.labels("cpu")._value.get() == 75.0


async def test_a_cancel_leaves_no_slot_taken_no_folder_and_no_output(site: Site) -> None:
    begun, discarded, folders = asyncio.Event(), [], []

    async def make(context: StepContext) -> Made:
        (context.folder / "media").touch()
        folders.append(context.folder)
        begun.set()
        await asyncio.get_running_loop().create_future()
        return Made()

    async def discard(_spec: JobSpec, attempt: str) -> None:
        discarded.append(attempt)

    slots = Slots({SlotKind.CPU: 1})
    host = Host(
        procedures={JobKind.HLS: JobProcedure(make=make, discard=discard)},
        slots=slots,
        workplace=site.workplace,
    )
    order = Order(step=Step.ENCODE, spec=SPEC, attempt="a1")
    running = asyncio.create_task(
        host.perform(order, report=site.reports.append, ended=asyncio.Event())
    )
    await begun.wait()
    assert str(slots) == "gpu=0 cpu=0"
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert str(slots) == "gpu=0 cpu=1"
    assert discarded == ["a1"]
    assert not folders[0].exists()


async def test_only_whoever_is_meant_is_told_of_an_end(tmp_path: Path) -> None:
    told: list[str] = []

    async def report(end: JobEnd) -> None:
        told.append(end.spec.id)

    spec = replace(SPEC, tells=("known", "unknown"))
    end = JobEnd(spec=spec, state=JobState.COMPLETE)
    with open_workplace(tmp_path / "work") as workplace:
        host = Host(
            procedures={JobKind.HLS: JobProcedure(make=_make_nothing)},
            slots=Slots({}),
            workplace=workplace,
            reporters={"known": report},
        )

        async def tell(whom: str) -> Answer:
            order = Order(step=Step.REPORT, spec=spec, attempt="a1", end=end, whom=whom)
            return await host.perform(order, report=lambda _: None, ended=asyncio.Event())

        await tell("known")
        with pytest.raises(StepError, match=r"cannot tell 'unknown' of the end.* WEBHOOK_URL"):
            await tell("unknown")
    assert told == [spec.id]


async def _make_nothing(_context: StepContext) -> Made:
    return Made()
