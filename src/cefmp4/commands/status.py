"""`cefmp4 status`: how far each stream and each job is."""

import argparse
import asyncio
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cefmp4.app.engine import desk_of
from cefmp4.commands.display import (
    behind_text,
    job_state_text,
    plain,
    progress_text,
    show,
    size_text,
    state_text,
)
from cefmp4.config.settings import Settings
from cefmp4.errors import CefError
from cefmp4.jobs.overview import fields_of
from cefmp4.log import redact
from cefmp4.model.job import MOST_TELLING_FIRST, Job, JobState
from cefmp4.model.stream import StreamState
from cefmp4.model.view import StreamView, most_telling, totals_of, view_of_record
from cefmp4.ports.checkpoints import CheckpointStore
from cefmp4.ports.jobs import JobDesk
from cefmp4.storage.redis.checkpoints import open_checkpoints

S = TypeVar("S", JobState, StreamState)

INTERVAL_S = 1.0
RECORDS_FRESH_S = 10.0  # reading 100,000 records takes seconds; what changes comes from instances
FEW_RECORDS = 1000
BAR_WIDTH = 10  # more would leave names no room in a window of 80 columns
FRAME_LINES = 10  # what two tables and their summaries take beside their rows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--watch", action="store_true", help="go on until Ctrl-C")
    parser.add_argument(
        "--json", action="store_true", help="one JSON object; with --watch one a second, one a line"
    )
    parser.add_argument(
        "--limit", type=int, default=30, metavar="N", help="streams and jobs to show (30)"
    )


class Board:
    """All streams: the records, and over them what living instances say."""

    def __init__(self, checkpoints: CheckpointStore) -> None:
        self.checkpoints = checkpoints
        self._records: dict[str, StreamView] = {}
        self._read_at = 0.0

    async def views(self) -> list[StreamView]:
        is_due = time.monotonic() - self._read_at >= RECORDS_FRESH_S
        if is_due or len(self._records) <= FEW_RECORDS:
            streams = await self.checkpoints.load_streams()
            self._records = {stream.id: view_of_record(stream) for stream in streams}
            self._read_at = time.monotonic()
        views = dict(self._records)
        for view in await self.checkpoints.load_views():
            views[view.id] = _newer(view, views.get(view.id))
        return list(views.values())


def _newer(live: StreamView, recorded: StreamView | None) -> StreamView:
    """What an instance said last outlives the end of the stream by seconds."""
    if recorded is not None and recorded.is_ended and recorded.updated_at >= live.updated_at:
        return recorded
    return live


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is shown: all streams, and the jobs that fit."""

    views: list[StreamView]
    jobs: list[Job]
    job_counts: dict[JobState, int]
    notes: dict[str, str]  # of instances that cannot work, and of jobs where nobody tells of them

    def fields(self, limit: int) -> dict[str, Any]:
        return {
            "streams": [view.to_fields() for view in most_telling(self.views, limit)],
            "jobs": [fields_of(job) for job in self.jobs],
            "totals": totals_of(self.views) | {"jobs": self.job_counts},
            "notes": self.notes,
        }

    def parts(self, limit: int) -> list[Table | Text]:
        parts: list[Table | Text] = [
            plain(f"{instance}: {note}", style="bold red") for instance, note in self.notes.items()
        ]
        parts += [table_of(self.views, limit), summary_of(self.views)]
        if self.jobs:
            parts += [job_table_of(self.jobs), job_summary_of(self.job_counts)]
        return parts


async def run(args: argparse.Namespace, settings: Settings) -> int:
    address, lease_s = settings.needed_redis_address, settings.lease_seconds
    async with open_checkpoints(address, lease_seconds=lease_s) as checkpoints:
        board, desk = Board(checkpoints), desk_of(settings)
        if args.json:
            await _print_json(board, desk, args.limit, again=args.watch)
        elif args.watch:
            await _watch(board, desk, args.limit)
        else:
            show(*(await _look(board, desk, args.limit)).parts(args.limit))
    return 0


async def _look(board: Board, desk: JobDesk, limit: int) -> Snapshot:
    notes = await board.checkpoints.load_notes()
    jobs: list[Job] = []
    counts: dict[JobState, int] = {}
    try:
        jobs, counts = await desk.latest(MOST_TELLING_FIRST, limit), await desk.counts()
    except CefError as error:
        notes["jobs"] = f"nothing can be told of them: {error}"
    return Snapshot(await board.views(), jobs, counts, notes)


async def _print_json(board: Board, desk: JobDesk, limit: int, *, again: bool) -> None:
    while True:
        print(json.dumps((await _look(board, desk, limit)).fields(limit)), flush=True)
        if not again:
            return
        await asyncio.sleep(INTERVAL_S)


async def _watch(board: Board, desk: JobDesk, limit: int) -> None:
    with Live(auto_refresh=False) as live:
        while True:
            # What does not fit is cut off at the bottom, where the jobs are.
            fits = max(3, min(limit, (live.console.height - FRAME_LINES) // 2))
            picture = await _look(board, desk, fits)
            live.update(Group(*picture.parts(fits)), refresh=True)
            await asyncio.sleep(INTERVAL_S)


def table_of(views: list[StreamView], limit: int) -> Table:
    table = Table(expand=False)
    table.add_column("file", overflow="fold", ratio=1)
    table.add_column("state", no_wrap=True)
    for name in ("size", "uploaded", "behind", "speed"):
        table.add_column(name, justify="right", no_wrap=True)
    for view in most_telling(views, limit):
        file = plain(view.relpath)
        if view.reason:
            file.append("\n").append_text(plain(view.reason, style="dim"))
        table.add_row(
            file,
            state_text(view.state),
            Text(size_text(view.size)),
            Text(size_text(view.uploaded)),
            Text(behind_text(view)),
            Text("-" if view.is_ended else f"{size_text(view.bytes_per_second)}/s"),
        )
    return table


def job_table_of(jobs: list[Job]) -> Table:
    table = Table(expand=False)
    table.add_column("job", overflow="fold", ratio=1)
    for name in ("state", "done", "", "tries"):
        table.add_column(name, no_wrap=True)
    for job in jobs:
        subject = plain(job.spec.input.name)
        if job.error and not job.is_complete:
            subject.append("\n").append_text(plain(redact(job.error), style="dim"))
        table.add_row(
            subject,
            job_state_text(job),
            _bar(job),
            Text(progress_text(job)),
            Text(f"{job.attempts}/{job.spec.max_attempts}"),
        )
    return table


def _bar(job: Job) -> ProgressBar | Text:
    if not job.is_running or job.progress is None:
        return Text("-")
    return ProgressBar(total=100, completed=job.progress.percent, width=BAR_WIDTH)


def job_summary_of(counts: dict[JobState, int]) -> Text:
    return Text(f"jobs: {_counted(counts, MOST_TELLING_FIRST)}")


def summary_of(views: list[StreamView]) -> Text:
    if not views:
        return Text("no streams yet")
    totals = totals_of(views)
    states = _counted(totals["streams"], StreamState)
    return Text(
        f"{states}; {size_text(totals['bytes_behind'])} behind, "
        f"{size_text(totals['bytes_per_second'])}/s"
    )


def _counted(counts: Mapping[S, int], order: Iterable[S]) -> str:
    return ", ".join(f"{counts[s]} {s.replace('_', ' ')}" for s in order if counts.get(s))
