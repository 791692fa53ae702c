"""Tables for a program that reads them: one line a row, nothing cut off, wrapped or coloured. And
where what was made can be watched."""

import io
import os
import pty
import re
import subprocess
import sys
from dataclasses import replace

import pytest
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cefmp4.commands import display
from cefmp4.config.page import PageSettings
from cefmp4.model.job import Job, JobInput, JobKind, JobSpec, JobState

LONG = "a folder/" * 40 + "name.mp4"


def table() -> Table:
    made = Table("id", "file", "done", box=None)
    made.add_row("1", display.plain("a\nb").append("\n").append_text(Text("it failed")), "-")
    made.add_row("22", display.plain(LONG, style="red"), ProgressBar(total=100, completed=3))
    return made


def test_a_row_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    display.show(table(), Text("two streams"))
    assert capsys.readouterr().out.splitlines() == [
        f"id  file{' ' * (len(LONG) - 4)}  done",
        f"1   a\\nb: it failed{' ' * (len(LONG) - 15)}  -",
        f"22  {LONG}  -",
        "two streams",
    ]


def test_people_get_it_as_wide_as_their_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("COLUMNS", "80")
    display.show(table())
    lines = re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue()).splitlines()
    assert len(lines) > 5
    assert max(map(len, lines)) <= 80


def test_what_is_complete_can_be_watched() -> None:
    spec = JobSpec(subject="s1", kind=JobKind.HLS, input=JobInput(bucket="b", key="k"))
    made, settings = Job(spec=spec, state=JobState.COMPLETE), PageSettings(prom_port=8000)
    assert display.watch_url_of(settings, made) == "http://127.0.0.1:8000/watch/s1"
    assert display.watch_url_of(settings, replace(made, state=JobState.QUEUED)) is None
    analysed = replace(made, spec=replace(spec, kind=JobKind.ANALYSIS))
    assert display.watch_url_of(settings, analysed) is None
    assert display.watch_url_of(settings, None) is None


TELLS = """
from cefmp4.commands.display import progress_line
with progress_line("looking", as_json=%s) as show_line:
    show_line("1 of 2")
    print("told")
"""


@pytest.mark.parametrize("as_json", [True, False])
def test_what_is_told_beside_a_line_of_progress_goes_where_it_should(as_json: bool) -> None:
    """As with `cefmp4 jobs backfill > file` in a terminal."""
    terminal, its_end = pty.openpty()
    try:
        run = subprocess.run(
            [sys.executable, "-c", TELLS % as_json], stdout=subprocess.PIPE, stderr=its_end
        )
    finally:
        os.close(its_end)
        os.close(terminal)
    assert (run.returncode, run.stdout) == (0, b"told\n")
