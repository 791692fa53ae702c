"""Runs worlds side by side and counts what their judges say, one row per fault."""

import asyncio
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults import (
    scenarios_files,
    scenarios_fuse,
    scenarios_hostile,
    scenarios_http,
    scenarios_identity,
    scenarios_kills,
    scenarios_limits,
    scenarios_media,
    scenarios_names,
    scenarios_planted,
    scenarios_process,
    scenarios_redis,
    scenarios_s3,
)
from tests.faults.judge import Verdict
from tests.faults.registry import SCENARIOS, CannotRunError, Scenario
from tests.faults.s3_client import open_client
from tests.faults.world import open_world
from tests.support.servers import SwiftServer

_MODULES = (
    scenarios_s3,
    scenarios_redis,
    scenarios_process,
    scenarios_kills,
    scenarios_files,
    scenarios_identity,
    scenarios_names,
    scenarios_limits,
    scenarios_fuse,
    scenarios_http,
    scenarios_hostile,
    scenarios_media,
    scenarios_planted,
)  # importing them fills the registry
FEW, MANY, MOST = 300, 2000, 10_000  # small files at once: short form, long form, soak


CHECKED = ("losses", "duplicates", "stuck", "leaks")


@dataclass(slots=True)
class Row:
    runs: int = 0
    kills: int = 0
    losses: int = 0
    duplicates: int = 0
    stuck: int = 0
    leaks: int = 0
    seconds: float = 0.0

    def add(self, other: "Row") -> None:
        for column in Row.__slots__:
            setattr(self, column, getattr(self, column) + getattr(other, column))

    def __str__(self) -> str:
        cells = " ".join(f"{f'{getattr(self, name)}/{self.runs}':>10}" for name in CHECKED)
        return f"{self.runs:5} {self.kills:5} {cells} {self.seconds:8.1f}"


@dataclass(slots=True)
class Matrix:
    keep: bool = False
    rows: dict[str, Row] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def count(self, name: str, verdict: Verdict, seconds: float) -> None:
        if verdict.skipped:
            self.skipped[name] = verdict.skipped
            return
        found = {column: len(getattr(verdict, column)) for column in CHECKED}
        row = Row(runs=1, kills=verdict.kills, seconds=seconds, **found)
        self.rows.setdefault(name, Row()).add(row)

    @property
    def is_clean(self) -> bool:
        return not any(getattr(row, name) for row in self.rows.values() for name in CHECKED)

    def table(self) -> str:
        """A row for each fault, a column for each thing that was looked for; a cell tells how often
        it was found, in how many runs."""
        titles = " ".join(f"{name:>10}" for name in CHECKED)
        lines = [f"{'fault':36}  runs kills {titles}  seconds"]
        total = Row()
        for name, row in sorted(self.rows.items()):
            lines.append(f"{name:36} {row}")
            total.add(row)
        lines.append(f"{'all':36} {total}")
        lines += [f"{name:36}  did not run: {why}" for name, why in sorted(self.skipped.items())]
        return "\n".join(lines) + "\n"


def chosen(only: Iterable[str], *, is_short: bool) -> list[Scenario]:
    wanted = set(only)
    return [
        one
        for one in SCENARIOS.values()
        if (not wanted or wanted & {one.name, one.group}) and (one.is_short or not is_short)
    ]


async def run_one(
    one: Scenario,
    seed: int,
    folder: Path,
    server: SwiftServer,
    client: Any,
    *,
    small_files: int = FEW,
) -> Verdict:
    try:
        async with asyncio.timeout(one.limit_s):
            return await _run_in_world(one, seed, folder, server, client, small_files)
    except CannotRunError as error:
        return Verdict(skipped=str(error))
    except TimeoutError:
        return Verdict(stuck=[f"the run did not end within {one.limit_s:.0f} s"])


async def _run_in_world(
    one: Scenario, seed: int, folder: Path, server: SwiftServer, client: Any, small_files: int
) -> Verdict:
    async with open_world(one.name, seed, folder, server, client, small_files=small_files) as world:
        try:
            async with asyncio.timeout(one.act_s):
                await one.run(world)
            verdict = await world.check(patience_s=one.patience_s)
        except (AssertionError, OSError, ExceptionGroup) as error:  # TimeoutError is an OSError
            verdict = Verdict(stuck=["".join(traceback.format_exception(error))])
        if one.catches:
            verdict = _turned(verdict)
        verdict.kills = world.kills
        await world.judge.clear()
        return verdict


def _turned(verdict: Verdict) -> Verdict:
    """A planted bug that nobody noticed is the finding."""
    missed = "the planted bug was not noticed"
    return Verdict(losses=[missed]) if verdict.is_clean else Verdict()


async def _run_counted(
    matrix: Matrix, one: Scenario, seed: int, server: SwiftServer, client: Any, *, small_files: int
) -> None:
    folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="cefmp4-faults-"))
    started = time.monotonic()
    verdict = await run_one(one, seed, folder / "w", server, client, small_files=small_files)
    seconds = time.monotonic() - started
    matrix.count(one.name, verdict, seconds)
    said = "ok" if verdict.is_clean else f"FAILED {verdict}"
    said = f"did not run: {verdict.skipped}" if verdict.skipped else said
    again = "" if verdict.is_clean else f"  (again: --only {one.name} --seed {seed} --runs 1)"
    sys.stdout.write(f"{one.name:36} seed {seed:<8} {seconds:5.1f} s  {said}{again}\n")
    sys.stdout.flush()
    if matrix.keep and not verdict.is_clean:
        sys.stdout.write(f"    its logs: {folder}\n")
    else:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


async def run_all(
    matrix: Matrix,
    scenarios: list[Scenario],
    *,
    seed: int,
    runs: int | None,
    jobs: int,
    small_files: int,
) -> None:
    """Run k of a scenario has the seed `seed + k`."""
    slots = asyncio.Semaphore(jobs)

    async def guarded(one: Scenario, one_seed: int) -> None:
        async with slots:
            await _run_counted(matrix, one, one_seed, server, client, small_files=small_files)

    with tempfile.TemporaryDirectory(prefix="cefmp4-faults-s3-") as folder:
        server = SwiftServer(Path(folder))
        await server.start()
        try:
            async with open_client(server) as client, asyncio.TaskGroup() as group:
                for one in sorted(scenarios, key=lambda one: -one.patience_s):  # the longest first
                    for number in range(one.runs if runs is None else runs):
                        group.create_task(guarded(one, seed + number))
        finally:
            await server.stop()


async def soak(
    matrix: Matrix, scenarios: list[Scenario], *, seed: int, hours: float, jobs: int
) -> None:
    until, draw = time.monotonic() + hours * 3600, random.Random(seed)
    while time.monotonic() < until:
        batch = draw.sample(scenarios, min(len(scenarios), 10))
        batch_seed = draw.randrange(1_000_000)
        sys.stdout.write(f"seed {batch_seed}: {' '.join(one.name for one in batch)}\n")
        await run_all(matrix, batch, seed=batch_seed, runs=1, jobs=jobs, small_files=MOST)
