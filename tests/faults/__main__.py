"""Runs scenarios and prints the matrix: `python -m tests.faults [--short] [--seed N] [--only X]`.

The exit code is 0 when all is well, 1 when anything was lost, stored twice, stuck or leaked, 2 for
a name that no scenario has, 130 when it was interrupted. Every run has a deadline of its own."""

import argparse
import asyncio
import random
import signal
import sys
import time

from tests.faults.matrix import FEW, MANY, Matrix, chosen, run_all, soak


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--short", action="store_true", help="the subset for every change")
    parser.add_argument("--seed", type=int, default=None, help="replays a run")
    parser.add_argument("--only", action="append", default=[], help="scenario or group; may repeat")
    parser.add_argument("--runs", type=int, default=None, help="per scenario")
    parser.add_argument("--jobs", type=int, default=3, help="worlds side by side")
    parser.add_argument("--hours", type=float, default=0.0, help="random combinations for so long")
    parser.add_argument("--keep", action="store_true", help="keeps the folder of each failed run")
    parser.add_argument("--list", action="store_true", help="the names of all scenarios")
    return parser.parse_args()


def _cancel(task: "asyncio.Task[int] | None") -> None:
    """So that no service outlives us."""
    if task is not None:
        task.cancel()


async def _main(given: argparse.Namespace) -> int:
    seed = given.seed if given.seed is not None else random.randrange(1_000_000)
    scenarios = chosen(given.only, is_short=given.short)
    if not scenarios:
        sys.stderr.write("no scenario has that name\n")
        return 2
    sys.stdout.write(f"seed {seed}: {len(scenarios)} scenarios\n")
    if given.list:
        sys.stdout.write("".join(f"{one.group:8} {one.name}\n" for one in scenarios))
        return 0
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, _cancel, asyncio.current_task())
    started = time.monotonic()
    matrix = Matrix(keep=given.keep)
    if given.hours:
        await soak(matrix, scenarios, seed=seed, hours=given.hours, jobs=given.jobs)
    else:
        runs = given.runs or (1 if given.short else None)
        count = FEW if given.short else MANY
        await run_all(matrix, scenarios, seed=seed, runs=runs, jobs=given.jobs, small_files=count)
    sys.stdout.write(matrix.table())
    sys.stdout.write(f"seed {seed}, {time.monotonic() - started:.0f} seconds in all\n")
    return 0 if matrix.is_clean else 1


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(_main(_arguments())))
    except asyncio.CancelledError:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
