"""The command: runs the rows that were asked for, prints their tables, keeps them as JSON."""

import argparse
import asyncio
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from bench import backlog, crash, fleet, hls, jobs, ladder, recording, remux, tree
from bench.place import GIB, Options
from bench.report import Line, show, write_json
from cefmp4.log import configure_logging

ROWS: dict[str, tuple[str, Callable[[Options], Awaitable[list[Line]]], float]] = {
    "backlog": ("Backlog of finished files, 16 together", backlog.run, 600),
    "recording": ("A recording made at 40 MB/s", recording.run, 700),
    "fleet": ("200 files growing together", fleet.run, 800),
    "tree": ("A tree of files that are all stored", tree.run, 240),
    "crash": ("kill -9 in the middle of 1 GiB", crash.run, 200),
    "jobs": ("Jobs that do nothing, and how soon one begins", jobs.run, 800),
    "hls": ("HLS, one rendition", hls.run, 900),
    "ladder": ("HLS, a ladder", ladder.run, 900),
    "remux": ("HLS of a source that fits", remux.run, 300),
}
RESULTS = Path(__file__).parent / "results" / "latest.json"
MEMORY = Path("/dev/shm")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rows", default=",".join(ROWS), help="some of: " + ",".join(ROWS))
    parser.add_argument("--short", action="store_true", help="smaller; minutes instead of a coffee")
    parser.add_argument("--dir", type=Path, default=Path(tempfile.gettempdir()),
                        help="where the recordings lie")  # fmt: skip
    parser.add_argument("--server-dir", type=Path, default=None,
                        help="where the S3 server keeps objects; default: memory if it is big"
                        " enough, so that the disk is not what is measured")  # fmt: skip
    parser.add_argument("--peers", type=Path, default=Path(".venv-peers/bin"),
                        help="programs of the other tools")  # fmt: skip
    arguments = parser.parse_args()
    rows = [row for row in arguments.rows.split(",") if row]
    if unknown := set(rows) - set(ROWS):
        parser.error(f"unknown rows: {', '.join(sorted(unknown))}")
    options = Options(
        short=arguments.short,
        files=arguments.dir.resolve(),
        servers=(arguments.server_dir or _roomy(arguments.dir)).resolve(),
        peers=arguments.peers.resolve(),
    )
    configure_logging(level="WARNING", json_lines=False)  # of what the rows use of ours
    try:
        return asyncio.run(_run(rows, options))
    except (asyncio.CancelledError, KeyboardInterrupt):
        return 130


def _roomy(otherwise: Path) -> Path:
    if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 6 * GIB:
        return MEMORY
    return otherwise


async def _run(rows: list[str], options: Options) -> int:
    """SIGTERM ends it as Ctrl-C does: its processes and folders go."""
    this = asyncio.current_task()
    assert this is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    return await _measure(rows, options)


async def _measure(rows: list[str], options: Options) -> int:
    lines: list[Line] = []
    broken = []
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load before: {load:.2f}; recordings in {options.files},"
          f" objects in {options.servers}")  # fmt: skip
    for row in rows:
        title, run, limit_s = ROWS[row]
        started = time.monotonic()
        try:
            async with asyncio.timeout(limit_s):
                measured = await run(options)
        except (TimeoutError, RuntimeError, OSError) as error:
            broken.append(row)
            print(f"\n{title}\n  did not finish: {error}", file=sys.stderr, flush=True)
            continue
        lines += measured
        print(show(f"{title} ({time.monotonic() - started:.0f} s)", measured), flush=True)
        write_json(RESULTS, lines, short=options.short, cores=os.cpu_count(), load=load)
    failed = [line for line in lines if line.verdict == "FAIL"]
    print(f"\n{len(failed)} of {sum(line.limit is not None for line in lines)} targets missed"
          + (f"; rows that broke: {', '.join(broken)}" if broken else ""))  # fmt: skip
    return 1 if failed or broken else 0


if __name__ == "__main__":
    sys.exit(main())
