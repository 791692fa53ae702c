"""An ffprobe that waits."""

import stat
from pathlib import Path

SLOW_PROBE = """#!/bin/sh
touch {begun}
while [ ! -e {go} ]; do sleep 0.05; done
exec ffprobe "$@"
"""


def slow_probe(folder: Path) -> str:
    """An ffprobe that says when it begins, and waits until it may go on."""
    program = folder / "slow-ffprobe"
    program.write_text(SLOW_PROBE.format(begun=folder / "begun", go=folder / "go"))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return str(program)
