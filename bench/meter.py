"""What a process costs: CPU seconds, children it waited for included, and memory, from /proc."""

import asyncio
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
SAMPLE_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    wall_s: float
    cpu_s: float
    peak_rss: int  # bytes, of the largest process
    code: int
    output: str


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, its threads, and the children it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]) / TICKS_PER_S


def rss(pid: int) -> int:
    return _memory(pid, "VmRSS")


def peak_rss(pid: int) -> int:
    """Not what wait4 tells: there a child begins with the memory of the process that forked it."""
    return _memory(pid, "VmHWM")


def _memory(pid: int, name: str) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return 0


async def run_measured(
    command: Sequence[str], *, environment: Mapping[str, str], folder: Path, timeout_s: float
) -> Run:
    """Runs a program to its end. One that takes too long is killed and counts as failed."""
    log = folder / "output.log"
    started = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: ASYNC220 - wait4 tells what it cost, asyncio does not
            command, env=dict(environment), cwd=folder, stdout=output, stderr=output,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    peak = 0
    try:
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)  # noqa: ASYNC222 - it returns at once
            if pid:
                break
            peak = max(peak, _largest_in_tree(process.pid))
            if time.monotonic() - started > timeout_s:
                process.kill()
            await asyncio.sleep(SAMPLE_S)
        process.returncode = os.waitstatus_to_exitcode(status)
    finally:
        if process.returncode is None:
            process.kill()
            process.wait()
    return Run(
        wall_s=time.monotonic() - started,
        cpu_s=usage.ru_utime + usage.ru_stime,
        peak_rss=peak,
        code=process.returncode,
        output=log.read_text(errors="replace")[-2000:],
    )


def _largest_in_tree(pid: int) -> int:
    largest = peak_rss(pid)
    with suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            largest = max(largest, _largest_in_tree(int(child)))
    return largest
