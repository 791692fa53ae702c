"""Starts the service with a wall clock of its own: `python -m tests.faults.stepped FILE ingest`.

FILE holds the seconds by which it is ahead, and may be written at any time; so the clock of a
machine is set, as far as the service can see, without setting it for everybody. Change times come
from the kernel, which keeps the true time. The monotonic clock is left alone."""

import sys
import time
from pathlib import Path

_true_time = time.time


def step_clock(path: Path) -> None:
    def stepped_time() -> float:
        return _true_time() + _ahead_s(path)

    time.time = stepped_time


def _ahead_s(path: Path) -> float:
    try:
        return float(path.read_text(encoding="ascii") or 0)
    except OSError:
        return 0.0


if __name__ == "__main__":
    step_clock(Path(sys.argv.pop(1)))
    from cefmp4.__main__ import command  # whoever imports the clock by name must get this one

    command()
