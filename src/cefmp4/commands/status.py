"""`cefmp4 status`: how far each stream is."""

import argparse
import asyncio
import json
import time
from collections import Counter
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cefmp4.commands.board import Board, redis_address
from cefmp4.commands.display import behind_text, plain, size_text, state_text
from cefmp4.config import Settings
from cefmp4.model.stream import StreamState
from cefmp4.model.view import StreamView, most_telling
from cefmp4.storage.checkpoints import open_checkpoints

INTERVAL_S = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--watch", action="store_true", help="go on until Ctrl-C")
    parser.add_argument(
        "--json", action="store_true", help="one JSON object; with --watch one a second, one a line"
    )
    parser.add_argument("--limit", type=int, default=30, metavar="N", help="streams to show (30)")


async def run(args: argparse.Namespace, settings: Settings) -> int:
    address = redis_address(settings)
    async with open_checkpoints(address, lease_seconds=settings.lease_seconds) as checkpoints:
        board = Board(checkpoints, time.monotonic)
        if args.json:
            await _print_json(board, args.limit, again=args.watch)
        elif args.watch:
            await _watch(board, args.limit)
        else:
            views = await board.views()
            Console().print(table_of(views, args.limit), summary_of(views), sep="\n")
    return 0


async def _print_json(board: Board, limit: int, *, again: bool) -> None:
    while True:
        views = await board.views()
        shown = [view.to_fields() for view in most_telling(views, limit)]
        print(json.dumps({"streams": shown, "totals": _totals(views)}), flush=True)
        if not again:
            return
        await asyncio.sleep(INTERVAL_S)


async def _watch(board: Board, limit: int) -> None:
    with Live(auto_refresh=False) as live:
        while True:
            views = await board.views()
            table = table_of(views, limit)
            table.caption = summary_of(views)
            live.update(table, refresh=True)
            await asyncio.sleep(INTERVAL_S)


def table_of(views: list[StreamView], limit: int) -> Table:
    table = Table(expand=False, caption_justify="left")
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


def summary_of(views: list[StreamView]) -> Text:
    if not views:
        return Text("no streams yet")
    counts = Counter(view.state for view in views)
    states = ", ".join(
        f"{counts[state]} {state.replace('_', ' ')}" for state in StreamState if counts[state]
    )
    totals = _totals(views)
    return Text(
        f"{states}; {size_text(totals['bytes_behind'])} behind, "
        f"{size_text(totals['bytes_per_second'])}/s"
    )


def _totals(views: list[StreamView]) -> dict[str, Any]:
    return {
        "streams": dict(Counter(view.state for view in views)),
        "active_streams": sum(not view.is_ended for view in views),
        "bytes_behind": sum(view.behind_bytes for view in views),
        "seconds_behind": max((view.behind_seconds for view in views), default=0.0),
        "bytes_per_second": sum(view.bytes_per_second for view in views),
    }
