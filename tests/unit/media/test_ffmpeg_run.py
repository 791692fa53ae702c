"""A run of a child with pipes: stand-ins for ffmpeg, written in shell."""

import asyncio
import os
import sys
import time
from pathlib import Path

import psutil
import pytest

from cefmp4.errors import PermanentError, TransientError
from cefmp4.media.ffmpeg_run import FfmpegRun, Pace, RunLimits
from cefmp4.media.pipe import Pipe
from cefmp4.model.part import MIB


class Taker:
    """Takes what comes; may be slow, or fail."""

    options = ()

    def __init__(self, error: Exception | None = None, hold: asyncio.Event | None = None) -> None:
        self.data = bytearray()
        self._error = error
        self._hold = hold

    async def pump(self, pipe: Pipe) -> None:
        while piece := await pipe.read(65536):
            self.data += piece
            if self._error:
                raise self._error
            if self._hold:
                await self._hold.wait()


async def run(script: str, *takers: Taker, **limits: float) -> tuple[FfmpegRun, list[float]]:
    """In the script, $1 and $2 are the pipes."""
    seen: list[float] = []
    made = FfmpegRun(
        limits=RunLimits(**{"grace_s": 20, **limits}),  # type: ignore[arg-type]  # of one test
        pace=Pace(),
        on_pace=lambda pace: seen.append(pace.out_time_s),
    )
    await made.run(["sh", "-c", script, "sh"], takers)
    return made, seen


def into(position: int, data: str) -> str:
    return f"printf '{data}' > /proc/self/fd/${{{position}#pipe:}}; "


async def test_every_pipe_arrives_and_progress_is_told() -> None:
    one, two = Taker(), Taker()
    reports = "printf 'out_time_us=500000\\nfps=30\\nspeed=2.5x\\nprogress=continue\\n'; "
    ended, seen = await run(reports + into(1, "first") + into(2, "second"), one, two)
    assert (bytes(one.data), bytes(two.data)) == (b"first", b"second")
    assert ended.returncode == 0
    assert seen == [0.5]


async def test_complaints_are_kept_and_counted() -> None:
    script = "echo '[h264 @ 0x1] [error] broken' >&2; echo '[warning] odd' >&2; exit 3"
    ended, _ = await run(script, Taker())
    assert ended.returncode == 3
    assert ended.stderr.errors == 1
    assert "odd" in ended.stderr.tail


async def test_a_failing_pump_kills_the_child(tmp_path: Path) -> None:
    failing = Taker(error=PermanentError("refused"))
    pid_file = tmp_path / "pid"
    script = f"echo $$ > {pid_file}; {into(1, 'x')} sleep 60; true"
    with pytest.raises(PermanentError, match="refused"):
        await run(script, failing)
    assert not psutil.pid_exists(int(pid_file.read_text()))


async def test_who_takes_nothing_stops_the_child() -> None:
    """Memory stays bounded: what nobody takes stays in the child."""
    hold = asyncio.Event()
    taker = Taker(hold=hold)
    script = "head -c 50000000 /dev/zero > /proc/self/fd/${1#pipe:}; echo progress=end"
    task = asyncio.create_task(run(script, taker))
    async with asyncio.timeout(10):
        while not taker.data:  # noqa: ASYNC110  # the child's doing has no event
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)
    assert len(taker.data) <= 65536
    assert not task.done()
    hold.set()
    await task
    assert len(taker.data) == 50_000_000


async def test_a_stalled_child_is_killed() -> None:
    started = time.monotonic()
    with pytest.raises(TransientError, match="no further"):
        await run("sleep 60; true", Taker(), stall_s=0.3)
    assert time.monotonic() - started < 10


async def test_the_time_limit() -> None:
    with pytest.raises(TransientError, match="needed more than"):
        await run("sleep 60; true", Taker(), grace_s=0.3)


async def test_a_child_that_takes_too_much_memory_is_killed() -> None:
    """What it really uses counts; to map more than that is nothing."""
    maps = f"exec {sys.executable} -c 'import mmap, time; mmap.mmap(-1, 1 << 31); time.sleep(1)'"
    ended, _ = await run(maps, Taker(), memory_bytes=200 * MIB)
    assert ended.returncode == 0
    takes = f"exec {sys.executable} -c 'import time; b = chr(120) * (300 << 20); time.sleep(60)'"
    with pytest.raises(PermanentError, match=r"more than 200 MiB.*raise FFMPEG_MEMORY_BYTES"):
        await run(takes, Taker(), memory_bytes=200 * MIB)


async def test_cancelling(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    task = asyncio.create_task(
        run(f"echo $$ > {pid_file}; {into(1, 'x')} sleep 60", taker := Taker())
    )
    async with asyncio.timeout(10):
        while not taker.data:  # noqa: ASYNC110  # the child's doing has no event
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not psutil.pid_exists(int(pid_file.read_text()))


async def test_no_descriptor_is_left_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        await run(into(1, "x"), Taker(), Taker())
        with pytest.raises(PermanentError):
            await run(into(1, "x"), Taker(error=PermanentError("refused")))
    await asyncio.sleep(0)
    assert len(os.listdir("/proc/self/fd")) <= before + 1


def test_pace_never_goes_back() -> None:
    pace = Pace()
    for value in ("1000000", "N/A", "-9223372036854775808", "500000"):
        pace.take("out_time_us", value, now=5.0)
    assert (pace.out_time_s, pace.moved_at) == (1.0, 5.0)
    assert pace.take("progress", "end", now=6.0)


def test_what_is_left_is_told_by_the_speed() -> None:
    pace = Pace(length_s=10.0)
    assert (pace.fraction, pace.eta_s) == (0.0, None)
    for key, value in (("out_time_us", "4000000"), ("speed", "2.0x")):
        pace.take(key, value, now=1.0)
    assert (pace.fraction, pace.eta_s) == (0.4, 3.0)
    pace.take("out_time_us", "12000000", now=2.0)
    assert (pace.fraction, pace.eta_s) == (1.0, 0.0)
