"""What `cefmp4 download` and `upload` have in common: how they tell what became of each file, and
how fast it goes."""

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from time import monotonic

from cefmp4.commands.display import progress_line, seconds_text, size_text
from cefmp4.log import printable
from cefmp4.transfer import Status, Transferred


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--overwrite", action="store_true", help="replace what is there with other bytes"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object for each file")


@dataclass(slots=True)
class Teller:
    """`hear` and `count` are called while it goes on."""

    as_json: bool
    show_line: Callable[[str], None]
    counts: Counter[Status] = field(default_factory=Counter)
    moved: int = 0
    begun_at: float = field(default_factory=monotonic)

    def hear(self, result: Transferred) -> None:
        self.counts[result.status] += 1
        _tell(json.dumps(asdict(result)) if self.as_json else _line_of(result))
        self._show()

    def count(self, moved: int) -> None:
        self.moved += moved
        self._show()

    @property
    def exit_code(self) -> int:
        return 1 if self.counts[Status.FAILED] else 0

    def summary(self) -> str:
        told = ", ".join(f"{self.counts[status]} {status}" for status in Status)
        seconds = monotonic() - self.begun_at
        speed = size_text(self.moved / max(seconds, 0.001))
        return f"{told}; {size_text(self.moved)} in {seconds_text(seconds)}, {speed}/s"

    def _show(self) -> None:
        self.show_line(self.summary())


@contextmanager
def telling(*, as_json: bool) -> Iterator[Teller]:
    with progress_line("looking", as_json=as_json) as show_line:
        teller = Teller(as_json, show_line)
        yield teller
    if not as_json:
        _tell(teller.summary())


def _tell(line: str) -> None:
    """Whoever reads it may have seen enough: that is no reason to move no more."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _line_of(result: Transferred) -> str:
    names = " ".join(printable(name) for name in (result.key, result.path) if name)
    what = f"{size_text(result.bytes)}, {result.proven_by}" if result.proven_by else result.reason
    status = result.status.upper() if result.has_failed else result.status
    return f"{status:8} {names}: {printable(what)}"
