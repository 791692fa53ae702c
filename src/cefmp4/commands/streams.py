"""`cefmp4 streams`: list, show, retry or forget streams."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict

from rich.table import Table
from rich.text import Text

from cefmp4.commands.board import Board
from cefmp4.commands.display import (
    plain,
    show_facts,
    show_list,
    size_text,
    state_text,
    time_text,
)
from cefmp4.commands.orphans import list_orphans
from cefmp4.config.settings import Settings
from cefmp4.ingest.operator import find_stream, forget_stream, retry_stream
from cefmp4.jobs.ledger import open_ledger
from cefmp4.log import printable
from cefmp4.model.job import JobKind, job_id_of
from cefmp4.model.part import Part
from cefmp4.model.stream import Stream, StreamState
from cefmp4.model.view import StreamView, most_telling
from cefmp4.ports.checkpoints import CheckpointStore
from cefmp4.storage.redis.checkpoints import open_checkpoints
from cefmp4.storage.redis.owner import host_of
from cefmp4.web.address import watch_url_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("ls", help="the latest streams")
    listing.add_argument(
        "--state", type=StreamState, choices=list(StreamState), metavar="STATE", help="only these"
    )
    listing.add_argument(
        "--orphans", action="store_true", help="instead, open uploads that no stream claims"
    )
    listing.add_argument("--limit", type=int, default=50, metavar="N", help="how many (50)")
    showing = actions.add_parser("show", help="everything that is known of one stream")
    retrying = actions.add_parser("retry", help="take the file of a failed stream up again")
    forgetting = actions.add_parser(
        "forget", help="remove a stream's record; its object and its file stay"
    )
    for action in (showing, retrying, forgetting):
        action.add_argument("id", metavar="ID", help="the stream id")
    for action in (listing, showing, retrying, forgetting):
        action.add_argument("--json", action="store_true", help="JSON, one object a line")


async def run(args: argparse.Namespace, settings: Settings) -> int:
    if args.action == "ls" and args.orphans:
        await list_orphans(settings, limit=args.limit, as_json=args.json)
        return 0
    address = settings.needed_redis_address
    async with open_checkpoints(address, lease_seconds=settings.lease_seconds) as checkpoints:
        if args.action == "ls":
            await _list(checkpoints, args)
        elif args.action == "show":
            await _show(checkpoints, args, settings)
        else:
            await _change(checkpoints, args)
    return 0


async def _list(checkpoints: CheckpointStore, args: argparse.Namespace) -> None:
    views = await Board(checkpoints).views()
    shown = [view for view in views if args.state is None or view.state is args.state]
    show_list(
        most_telling(shown, args.limit),
        fields=StreamView.to_fields,
        table=_table_of,
        none="no such streams" if args.state else "no streams yet",
        as_json=args.json,
    )


def _table_of(views: Sequence[StreamView]) -> Table:
    table = Table("id", "state", "size", "changed", box=None)
    table.add_column("file", overflow="fold")
    table.columns[0].no_wrap = True
    for view in views:
        table.add_row(
            plain(view.id),
            state_text(view.state),
            Text(size_text(view.size)),
            Text(time_text(view.updated_at)),
            plain(view.relpath),
        )
    return table


async def _show(checkpoints: CheckpointStore, args: argparse.Namespace, settings: Settings) -> None:
    stream = await find_stream(checkpoints, args.id)
    parts = await checkpoints.load_parts(stream.id)
    owner = await checkpoints.holder(stream.id)
    facts = asdict(stream)
    beside = {
        "held_by": host_of(owner) if owner else None,
        "watch_url": await _watch_url(settings, stream),
    }
    if args.json:
        print(json.dumps(facts | beside | {"parts": [asdict(part) for part in parts.values()]}))
        return
    stamp = facts.pop("stamp") or {}
    facts["crc64"] = f"{stream.crc64:016x}"
    facts["stamp"] = " ".join(f"{name}={value}" for name, value in stamp.items())
    show_facts(facts | beside, width=14)
    for part in parts.values():
        print(_line_of(part))


async def _watch_url(settings: Settings, stream: Stream) -> str | None:
    address = settings.needed_redis_address
    async with open_ledger(address, lease_seconds=settings.lease_seconds) as ledger:
        return watch_url_of(settings, await ledger.find(job_id_of(stream.id, JobKind.HLS)))


def _line_of(part: Part) -> str:
    return (
        f"part {part.number:<9} {part.size:>13} bytes  crc64 {part.crc64:016x}  "
        f"{time_text(part.uploaded_at)}  {printable(part.etag)}"
    )


async def _change(checkpoints: CheckpointStore, args: argparse.Namespace) -> None:
    stream_id = args.id
    if args.action == "retry":
        await retry_stream(checkpoints, stream_id)
        done = "will be taken up again"
    else:
        await forget_stream(checkpoints, stream_id)
        done = "is forgotten"
    print(
        json.dumps({"id": stream_id, "done": True}) if args.json else f"stream {stream_id} {done}"
    )
