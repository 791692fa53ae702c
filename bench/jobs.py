"""Row: what the engine of jobs costs, with jobs that do nothing: how many it gets done, and how
soon one begins on an idle worker, or elsewhere when its worker is killed."""

import asyncio
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from bench import meter, noop_worker
from bench.engine import engine
from bench.place import Options, Place, place, scratch
from bench.report import Line
from bench.service import LOOK_S, Service
from cefmp4.model.job import JobInput, JobKind, JobSpec, JobState
from cefmp4.temporal.desk import Desk

ROW = "jobs"
JOBS, SHORT_JOBS = 1000, 100
IDLE, SHORT_IDLE = 20, 5
KILLS, SHORT_KILLS = 5, 2
AT_ONCE = 8
READY, BEGUN = "ready for jobs", "job begun"
START_S, TIMEOUT_S, KILL_S = 30.0, 600.0, 60.0
COUNT_S = 0.5  # seldom: the server that answers shares the cores


async def run(options: Options) -> list[Line]:
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(scratch(options.files))
        where = await stack.enter_async_context(place(options, jobs=True))
        client = await engine(where)
        desk = Desk(client)
        first = await stack.enter_async_context(_worker(where, folder))
        await first.until(READY, 1, START_S)
        lines = [_idle(await _begun_after(desk, first, SHORT_IDLE if options.short else IDLE))]
        lines += await _many(desk, first, SHORT_JOBS if options.short else JOBS)
        lost_s, workers = list[float](), [first]
        for number in range(SHORT_KILLS if options.short else KILLS):
            workers.append(await stack.enter_async_context(_worker(where, folder)))
            await workers[-1].until(READY, 1, START_S)
            for worker in workers:
                worker.look()
            spec = _spec(f"killed{number}", seconds="2")
            await desk.submit(spec)
            lost_s.append(await _elsewhere(workers))
            await client.get_workflow_handle(spec.id).result()
        return [*lines, _killed(lost_s)]


def _worker(where: Place, folder: Path) -> Service:
    program = (sys.executable, noop_worker.__file__, str(folder / "work"))
    return Service(where, watch=folder, folder=folder, program=program)


def _spec(name: str, **params: str) -> JobSpec:
    return JobSpec(subject=name, kind=JobKind.HLS, input=JobInput(key=name), params=params)


async def _begun_after(desk: Desk, worker: Service, count: int) -> list[float]:
    """One after the other."""
    took_s = []
    for number in range(count):
        before = len(worker.seen.get(BEGUN, ()))
        asked = time.time()
        await desk.submit(_spec(f"idle{number}"))
        took_s.append(worker.started + await worker.until(BEGUN, before + 1, START_S) - asked)
    return took_s


def _idle(took_s: Sequence[float]) -> Line:
    return Line(
        row=ROW, what="submitting to begun, on an idle worker", measured=max(took_s), unit="s",
        limit=1.0, note=f"longest of {len(took_s)}; median {statistics.median(took_s):.3f} s",
    )  # fmt: skip


async def _many(desk: Desk, worker: Service, count: int) -> list[Line]:
    done_before = (await desk.counts())[JobState.COMPLETE]
    cpu_s, began = worker.cpu_s, time.monotonic()
    slots = asyncio.Semaphore(AT_ONCE)

    async def submit(number: int) -> None:
        async with slots:
            await desk.submit(_spec(f"many{number}"))

    await asyncio.gather(*(submit(number) for number in range(count)))
    submitted_s = time.monotonic() - began
    async with asyncio.timeout(TIMEOUT_S):
        while (await desk.counts())[JobState.COMPLETE] < done_before + count:  # noqa: ASYNC110
            await asyncio.sleep(COUNT_S)
    done_s = time.monotonic() - began
    return [
        Line(row=ROW, what=f"{count:,} jobs submitted, {AT_ONCE} at once", measured=submitted_s,
             unit="s", note=f"{count / submitted_s:,.0f} a second"),
        Line(row=ROW, what=f"{count:,} jobs done by one worker", measured=done_s, unit="s",
             note=f"{count / done_s:,.0f} a second, two steps each;"
             f" {1000 * (worker.cpu_s - cpu_s) / count:.1f} ms of CPU of the worker each"),
        Line(row=ROW, what="peak memory of the worker process",
             measured=meter.peak_rss(worker.pid) / 1e6, unit="MB"),
    ]  # fmt: skip


async def _elsewhere(workers: list[Service]) -> float:
    """Kills whoever begins the job."""
    holder, _ = await _next_begun(workers)
    holder.kill()
    workers.remove(holder)
    killed_at = time.time()
    _, begun_at = await _next_begun(workers)
    return begun_at - killed_at


async def _next_begun(workers: list[Service]) -> tuple[Service, float]:
    """Of the steps that nobody has looked at yet."""
    before = [len(worker.seen.get(BEGUN, ())) for worker in workers]
    async with asyncio.timeout(KILL_S):
        while True:
            for worker, count in zip(workers, before, strict=True):
                worker.look()
                if len(begun := worker.seen.get(BEGUN, ())) > count:
                    return worker, begun[count]
            await asyncio.sleep(LOOK_S)


def _killed(took_s: Sequence[float]) -> Line:
    return Line(
        row=ROW, what="kill -9 of the worker to begun elsewhere", measured=max(took_s), unit="s",
        limit=15.0, note=f"longest of {len(took_s)}; median {statistics.median(took_s):.1f} s",
    )  # fmt: skip
