"""`cefmp4 licences`: what this installation consists of, and under which licences."""

import argparse
import json
from dataclasses import asdict

from rich.table import Table

from cefmp4.commands.display import plain, show
from cefmp4.commands.shipped import (
    UNKNOWN,
    Shipped,
    player,
    program,
    python,
    python_packages,
    valkey,
)
from cefmp4.config.settings import Settings
from cefmp4.errors import ProgramMissingError
from cefmp4.media.ffmpeg_run import run_briefly


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


async def run(args: argparse.Namespace, settings: Settings) -> int:
    """1: what something may be used for is not known."""
    found = python_packages()
    found += [other for other in (python(), player(), valkey()) if other is not None]
    for name, path in (("ffmpeg", settings.ffmpeg_path), ("ffprobe", settings.ffprobe_path)):
        found += await _program(name, path)
    if args.json:
        for shipped in found:
            print(json.dumps(asdict(shipped)))
    else:
        show(_table(found))
    return 1 if any(shipped.licence == UNKNOWN for shipped in found) else 0


async def _program(name: str, path: str) -> list[Shipped]:
    try:
        done = await run_briefly([path, "-version"])
    except ProgramMissingError:
        return []  # doctor says so
    return [program(name, done.stdout.decode("utf-8", "replace"))] if done.is_ok else []


def _table(found: list[Shipped]) -> Table:
    table = Table("name", "version", "licence", "text", box=None)
    for shipped in found:
        table.add_row(*map(plain, (shipped.name, shipped.version, shipped.licence, shipped.text)))
    return table
