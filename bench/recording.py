"""Row: a recording that grows while it is uploaded: how soon after its end it is proven."""

import asyncio
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from bench.peers import installed, store
from bench.place import GIB, Options, Place, child, place, scratch
from bench.report import Line, percentile
from bench.service import DESCRIBED, LOADED, STORED, Service
from bench.writers import make_head

RATE = 40e6
SETTLE_S = 2.0
LIMIT_S = 1.0
BYTES, SHORT_BYTES = GIB, GIB // 4
RUNS, SHORT_RUNS = 10, 3
ROW = "recording"


async def run(options: Options) -> list[Line]:
    size, runs = (SHORT_BYTES, SHORT_RUNS) if options.short else (BYTES, RUNS)
    with scratch(options.files) as folder:
        make_head(folder / "head.mp4")
        watch = folder / "recordings"
        watch.mkdir()
        stored, described, cpu = [], [], []
        async with place(options) as where, _service(where, folder, watch) as service:
            await service.until(LOADED, 1, 30)
            for number in range(1, runs + 1):
                before = service.cpu_s
                path = watch / f"show-{number}.mp4"
                closed = await _record(path, size, folder)
                stored.append(await service.until(STORED, number, 60) + service.started - closed)
                described.append(
                    await service.until(DESCRIBED, number, 60) + service.started - closed
                )
                cpu.append(service.cpu_s - before)
                path.unlink()
        lines = list(_ours(size, stored, described, cpu))
        return lines + await _peers(options, folder, size)


def _service(where: Place, folder: Path, watch: Path) -> Service:
    settings = {"SETTLE_SECONDS": str(SETTLE_S)}
    return Service(where, watch=watch, folder=folder, settings=settings)


async def _record(path: Path, size: int, folder: Path) -> float:
    """Returns the time of the close, as the writer saw it."""
    command = [sys.executable, "-m", "bench.writers", "record", str(path)]
    command += [f"--bytes={size}", f"--rate={RATE}", f"--head={folder / 'head.mp4'}"]
    with child(command, stdout=subprocess.PIPE) as writer:
        out, _ = await asyncio.to_thread(writer.communicate, timeout=60 + 3 * size / RATE)
    return float(out)


def _ours(
    size: int, stored: list[float], described: list[float], cpu: list[float]
) -> Iterator[Line]:
    after = [seconds - SETTLE_S for seconds in stored]
    note = f"{len(after)} runs of {size >> 20} MiB: " + " ".join(f"{s:.2f}" for s in after)
    yield Line(
        row=ROW, what="close to proven object, less the settle time, p95",
        measured=percentile(after, 0.95), unit="s", limit=LIMIT_S, note=note,
    )  # fmt: skip
    yield Line(row=ROW, what="the same, p50", measured=statistics.median(after), unit="s")
    yield Line(
        row=ROW, what="close to proven object, settle time included, p50",
        measured=statistics.median(stored), unit="s",
    )  # fmt: skip
    yield Line(
        row=ROW, what="close to metadata document, p50",
        measured=statistics.median(described), unit="s",
    )  # fmt: skip
    yield Line(
        row=ROW, what="CPU per GiB, p50",
        measured=statistics.median(cpu) * GIB / size, unit="s",
    )  # fmt: skip


async def _peers(options: Options, folder: Path, size: int) -> list[Line]:
    """Started at the close, they send everything then."""
    path = folder / "show.mp4"
    await _record(path, size, folder)
    lines = []
    for peer in installed(options):
        async with place(options) as where:
            run = await store(options, peer, where, path)
        note = f"CPU per GiB {run.cpu_s * GIB / size:.2f} s"
        what = f"{peer.name}, started at the close"
        lines.append(Line(row=ROW, what=what, measured=run.wall_s, unit="s", note=note))
    return lines
