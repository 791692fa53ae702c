"""How commands write numbers, times and names for people."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TypeVar

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from cefmp4.config.page import PageSettings
from cefmp4.log import printable
from cefmp4.model.job import Job, JobKind, JobState
from cefmp4.model.stream import PROVEN_STATES, StreamState
from cefmp4.model.view import StreamView

T = TypeVar("T")

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_STATE_COLOURS = {
    StreamState.DISCOVERED: "blue",
    StreamState.UPLOADING: "blue",
    StreamState.STALE: "yellow",
    StreamState.FINALIZING: "yellow",
    StreamState.FAILED: "red",
}

_JOB_COLOURS = {
    JobState.QUEUED: "blue",
    JobState.IN_PROGRESS: "yellow",
    JobState.COMPLETE: "green",
    JobState.FAILED: "red",
}


def is_for_people() -> bool:
    """Whether standard output is a terminal: else a program reads it."""
    return sys.stdout.isatty()


@contextmanager
def progress_line(text: str, *, as_json: bool) -> Iterator[Callable[[str], None]]:
    """One line that people see while it goes on; what it yields changes it. Not where a program
    reads: while it is there, all of standard output goes through it to standard error."""
    if as_json or not (is_for_people() and sys.stderr.isatty()):
        yield lambda _text: None
        return
    with Console(stderr=True).status(text) as line:
        yield line.update


def show(*parts: RenderableType) -> None:
    """For people as wide as their terminal; for a program one line a row, and nothing cut off."""
    if is_for_people():
        Console().print(*parts, sep="\n")
        return
    for part in parts:
        for line in _lines(part):
            print(line)


def show_list(
    found: Sequence[T],
    *,
    fields: Callable[[T], object],
    columns: Mapping[str, Callable[[T], Text | str]],
    none: str,
    as_json: bool,
) -> None:
    """For a program one JSON object a line. `columns`: what people see, and how it is made of each;
    the last has what may be long. `none`: what is said where there are none."""
    if as_json:
        for one in found:
            print(json.dumps(fields(one)))
    elif found:
        table = Table(box=None)
        for name in columns:
            table.add_column(name, overflow="fold")
        table.columns[0].no_wrap = True
        for one in found:
            table.add_row(*(Text.assemble(column(one)) for column in columns.values()))
        show(table)
    else:
        print(none)


def tell_done(kind: str, id_: str, said: str, *, as_json: bool, **facts: object) -> None:
    print(json.dumps({"id": id_, **facts}) if as_json else f"{kind} {id_} {said}")


def show_facts(facts: Mapping[str, object], width: int) -> None:
    for name, value in facts.items():
        if name.endswith("_at") and isinstance(value, float):
            text = time_text(value)
        else:
            text = "-" if value in (None, "") else str(value)
        print(f"{name:{width}} {printable(text)}")


def _lines(part: RenderableType) -> Iterable[str]:
    if not isinstance(part, Table):
        return [str(part)]
    columns = [[str(column.header), *map(_cell, column.cells)] for column in part.columns]
    widths = [max(map(len, cells)) for cells in columns]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in zip(*columns, strict=True)
    ]


def _cell(cell: RenderableType) -> str:
    """Two lines of a cell, a name and why it failed, become one."""
    return str(cell).replace("\n", ": ") if isinstance(cell, Text | str) else "-"


def plain(text: str, style: str = "") -> Text:
    """File names are hostile: neither escapes nor markup in them mean anything."""
    return Text(printable(text), style=style)


def state_text(state: StreamState) -> Text:
    colour = "green" if state in PROVEN_STATES else _STATE_COLOURS.get(state, "")
    return Text(state.replace("_", " "), style=colour)


def job_state_text(job: Job) -> Text:
    return Text((job.reason or job.state).replace("_", " "), style=_JOB_COLOURS[job.state])


def watch_url_of(settings: PageSettings, job: Job | None) -> str | None:
    """None while there is nothing to watch."""
    if job is None or job.kind is not JobKind.HLS or not job.is_complete:
        return None
    return settings.watch_url(job.spec.subject)


def progress_text(job: Job) -> str:
    if job.progress is None or not job.is_running:
        return "-"
    left = job.progress.eta_seconds
    eta = f", {seconds_text(left)} left" if left is not None else ""
    return f"{job.progress.percent:.0f} %, {job.progress.speed:.1f}x{eta}"


def size_text(count: float) -> str:
    unit = 0
    while count >= 1024 and unit < len(_UNITS) - 1:
        count /= 1024
        unit += 1
    digits = 0 if unit == 0 or count >= 100 else 1
    return f"{count:.{digits}f} {_UNITS[unit]}"


def seconds_text(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def behind_text(view: StreamView) -> str:
    if not view.behind_bytes:
        return "-"
    return f"{size_text(view.behind_bytes)}, {seconds_text(view.behind_seconds)}"


def time_text(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%SZ}" if at else "-"
