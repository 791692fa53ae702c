"""Row: many files that grow together on two cores: memory, lag behind the writers, CPU."""

import asyncio
import os
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import meter
from bench.place import Options, child, place, scratch
from bench.report import Line, percentile
from bench.service import Service
from bench.writers import make_head

FILES = 200
RATE, SHORT_RATE = 100e3, 150e3  # bytes a second of each file, on average
PART = 5 * 1024 * 1024
SECONDS, SHORT_SECONDS = 600.0, 75.0
SAMPLE_S = 2.0
WARM_UP = 0.4  # of the time: what is sent at first is a backlog
GROWTH_LIMIT = 0.05
ROW = "200 growing files"


@dataclass(slots=True)
class Samples:
    rss: list[int] = field(default_factory=list)
    behind: list[float] = field(default_factory=list)  # parts, every stream of every sample
    open_behind: list[float] = field(default_factory=list)  # the same without the held part 1
    seconds: list[float] = field(default_factory=list)

    def take(self, rss: int, streams: list[dict[str, Any]]) -> None:
        self.rss.append(rss)
        for stream in streams:
            behind = stream["behind_bytes"] / PART
            self.behind.append(behind)
            self.open_behind.append(max(0.0, behind - 1.0))
            self.seconds.append(stream["behind_seconds"])


async def run(options: Options) -> list[Line]:
    seconds, rate = (SHORT_SECONDS, SHORT_RATE) if options.short else (SECONDS, RATE)
    needed = 2 * FILES * (rate * seconds + 3 * PART)  # the files, and the objects made of them
    if shutil.disk_usage(options.files).free < needed:
        raise RuntimeError(f"it needs {needed / 1e9:.0f} GB in {options.files}")
    with scratch(options.files) as folder:
        make_head(folder / "head.mp4")
        watch = folder / "recordings"
        watch.mkdir()
        # Too much for a folder in memory: this row's objects go to the disk.
        on_disk = Options(
            short=options.short, files=options.files, servers=options.files, peers=options.peers
        )
        settings = {"CHUNK_SIZE_BYTES": str(PART)}
        async with (
            place(on_disk) as where,
            Service(where, watch=watch, folder=folder, settings=settings) as service,
        ):
            os.sched_setaffinity(service.pid, sorted(os.sched_getaffinity(0))[:2])
            await service.ready(30)
            return await _watch(service, _writer(watch, folder, rate, seconds), seconds)


def _writer(watch: Path, folder: Path, rate: float, seconds: float) -> list[str]:
    command = [sys.executable, "-m", "bench.writers", "fleet", str(watch)]
    command += [f"--files={FILES}", f"--rate={rate}", f"--seconds={seconds}"]
    return [*command, f"--head={folder / 'head.mp4'}"]


async def _watch(service: Service, writer: list[str], seconds: float) -> list[Line]:
    samples = Samples()
    with child(writer, stdout=subprocess.DEVNULL):
        await asyncio.sleep(seconds * WARM_UP)
        before, began = service.cpu_s, time.monotonic()
        while time.monotonic() - began < seconds * (1 - WARM_UP):
            samples.take(meter.rss(service.pid), await service.streams())
            await asyncio.sleep(SAMPLE_S)
        cpu = (service.cpu_s - before) / (time.monotonic() - began)
        sent = (await service.metrics()).get("video_bytes_uploaded_total", 0)
        service.look()
    return _lines(samples, seconds, cpu, sent, meter.peak_rss(service.pid), service)


def _lines(
    samples: Samples, seconds: float, cpu: float, sent: float, peak: int, service: Service
) -> list[Line]:
    third = max(1, len(samples.rss) // 3)
    early = statistics.median(samples.rss[:third])
    late = statistics.median(samples.rss[-third:])
    troubles = f"; warnings: {dict(service.trouble)}" if service.trouble else ""
    streams = len(samples.behind) // max(1, len(samples.rss))
    return [
        Line(row=ROW, what="peak memory", measured=peak / 1e6, unit="MB", limit=300.0),
        Line(row=ROW, what="growth of memory, first to last third", unit="%", limit=5.0,
             measured=(late - early) / early * 100,
             note=f"{early / 1e6:.0f} to {late / 1e6:.0f} MB in {seconds * (1 - WARM_UP):.0f} s"),
        Line(row=ROW, what="behind the writer beyond the held part 1, worst", unit="parts",
             measured=max(samples.open_behind, default=0.0), limit=2.0,
             note=f"{streams} streams in view{troubles}"),
        Line(row=ROW, what="the same, p50", unit="parts",
             measured=percentile(samples.open_behind, 0.5) if samples.behind else 0.0),
        Line(row=ROW, what="behind the writer, held part 1 included, worst", unit="parts",
             measured=max(samples.behind, default=0.0)),
        Line(row=ROW, what="CPU of the service", unit="% of a core", measured=cpu * 100,
             note=f"{FILES} files, {sent / 1e9:.2f} GB sent"),
    ]  # fmt: skip
