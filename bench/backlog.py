"""Row: finished files that wait to be stored, beside tools that copy them, over HTTP and TLS."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import meter
from bench.peers import Peer, installed, store
from bench.place import GIB, Options, place, scratch
from bench.report import Line
from bench.service import DESCRIBED, STORED, Service
from bench.writers import make_head, write_finished

FILES = 16
BYTES, SHORT_BYTES = 2 * GIB, GIB // 2
OURS = "cefmp4, proven"
TIMEOUT_S = 240.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    name: str
    wall_s: float
    cpu_s: float
    peak_rss: int
    note: str = ""


async def run(options: Options) -> list[Line]:
    size = SHORT_BYTES if options.short else BYTES
    lines: list[Line] = []
    with scratch(options.files) as folder:
        source = folder / "recordings"
        source.mkdir()
        make_head(folder / "head.mp4")
        head = (folder / "head.mp4").read_bytes()
        for number in range(FILES):
            write_finished(source / f"take-{number:02}.mp4", size // FILES, head, number)
        for way, share in (("http", 0.25), ("tls", 0.5)):
            costs = [await _peer(options, source, peer, way) for peer in installed(options)]
            ours = await _ours(options, folder, source, way)
            lines += _lines(way, size / GIB, share, costs, ours)
    return lines


async def _peer(options: Options, source: Path, peer: Peer, way: str) -> Cost:
    async with place(options, tls=way == "tls") as where:
        run = await store(options, peer, where, source)
    return Cost(name=peer.name, wall_s=run.wall_s, cpu_s=run.cpu_s, peak_rss=run.peak_rss)


async def _ours(options: Options, folder: Path, source: Path, way: str) -> list[Cost]:
    """The service runs already, as services do, and the backlog is moved into its folder; once
    until all objects are proven, once until all are described as well. What its start costs is in
    the note."""
    watch = folder / f"watch-{way}"
    watch.mkdir()
    async with (
        place(options, tls=way == "tls") as where,
        Service(where, watch=watch, folder=folder) as service,
    ):
        await service.ready(TIMEOUT_S)
        start_cpu, dropped_at = service.cpu_s, time.time()
        os.rename(source, watch / source.name)
        try:
            costs = []
            for name, event in ((OURS, STORED), ("cefmp4, described too", DESCRIBED)):
                done_at = service.started + await service.until(event, FILES, TIMEOUT_S)
                note = f"its start: {start_cpu:.2f} CPU s"
                if service.trouble:
                    note += f"; warnings: {dict(service.trouble)}"
                costs.append(
                    Cost(
                        name=name,
                        wall_s=done_at - dropped_at,
                        cpu_s=service.cpu_s - start_cpu,
                        peak_rss=meter.peak_rss(service.pid),
                        note=note,
                    )
                )
            return costs
        finally:
            os.rename(watch / source.name, source)


def _lines(
    way: str, gib: float, share: float, peers: list[Cost], ours: list[Cost]
) -> Iterator[Line]:
    best_wall = min((cost.wall_s for cost in peers), default=None)
    best_cpu = min((cost.cpu_s for cost in peers), default=None)
    for cost in [*ours, *peers]:
        is_ours = cost.name == OURS
        row = f"backlog {way}"
        yield Line(
            row=row, what=f"{way}: {cost.name}: wall", measured=cost.wall_s, unit="s",
            limit=best_wall if is_ours else None, against="best of the others",
        )  # fmt: skip
        yield Line(
            row=row, what=f"{way}: {cost.name}: CPU per GiB", measured=cost.cpu_s / gib, unit="s",
            limit=best_cpu * share / gib if is_ours and best_cpu else None,
            against=f"{share:g} x best", note=cost.note,
        )  # fmt: skip
        yield Line(
            row=row,
            what=f"{way}: {cost.name}: peak memory",
            measured=cost.peak_rss / 1e6,
            unit="MB",
        )
