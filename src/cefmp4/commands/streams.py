"""`cefmp4 streams`: list, show, retry or forget streams."""

import argparse
import json
import time
from dataclasses import asdict, dataclass

from cefmp4.app.clients import open_redis, open_store
from cefmp4.app.engine import desk_of
from cefmp4.commands.display import (
    plain,
    show_facts,
    show_list,
    size_text,
    state_text,
    tell_done,
    time_text,
    watch_url_of,
)
from cefmp4.commands.status import Board
from cefmp4.config.settings import Settings
from cefmp4.errors import CefError, UploadGoneError
from cefmp4.ingest.operator import Finder, forget_stream, retry_stream
from cefmp4.ingest.recover.orphans import OrphanSweeper
from cefmp4.log import printable
from cefmp4.model import names
from cefmp4.model.job import JobKind, job_id_of
from cefmp4.model.object import OpenUpload
from cefmp4.model.part import Part
from cefmp4.model.stream import Stream, StreamState
from cefmp4.model.view import StreamView, most_telling
from cefmp4.ports.checkpoints import CheckpointStore
from cefmp4.ports.store import ObjectStore
from cefmp4.storage.redis.checkpoints import open_checkpoints
from cefmp4.storage.redis.owner import host_of


@dataclass(frozen=True, slots=True)
class _Orphan:
    """An open upload that no stream claims."""

    upload: OpenUpload
    size: int | None  # None: it went while we looked
    is_old: bool

    @property
    def fate(self) -> str:
        if not self.upload.is_ours:
            return "stays: its key has no stream id"
        return "is aborted soon" if self.is_old else "is aborted after ORPHAN_GRACE_SECONDS"

    def fields(self, now: float) -> dict[str, object]:
        return {
            "key": self.upload.key,
            "upload_id": self.upload.upload_id,
            "initiated_at": self.upload.initiated_at,
            "age_seconds": round(max(0.0, now - self.upload.initiated_at), 1),
            "size": self.size,
            "is_ours": self.upload.is_ours,
        }


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
        action.add_argument(
            "what", metavar="ID|PATH", help="a stream, or the newest one of a file, by its path"
        )
    for action in (listing, showing, retrying, forgetting):
        action.add_argument("--json", action="store_true", help="JSON, one object a line")


async def run(args: argparse.Namespace, settings: Settings) -> int:
    if args.action == "ls" and args.orphans:
        await _list_orphans(settings, args)
        return 0
    address = settings.needed_redis_address
    async with open_checkpoints(address, lease_seconds=settings.lease_seconds) as checkpoints:
        if args.action == "ls":
            await _list(checkpoints, args)
            return 0
        finder = Finder(checkpoints, settings.watch_dir, settings.watch_dir_id)
        stream = await finder.get(args.what)
        if args.action == "show":
            await _show(checkpoints, stream, args, settings)
        else:
            await _change(checkpoints, stream.id, args)
    return 0


async def _list(checkpoints: CheckpointStore, args: argparse.Namespace) -> None:
    views = await Board(checkpoints).views()
    shown = [view for view in views if args.state is None or view.state is args.state]
    show_list(
        most_telling(shown, args.limit),
        fields=StreamView.to_fields,
        columns={
            "id": lambda view: plain(view.id),
            "state": lambda view: state_text(view.state),
            "size": lambda view: size_text(view.size),
            "changed": lambda view: time_text(view.updated_at),
            "file": lambda view: plain(view.relpath),
        },
        none="no such streams" if args.state else "no streams yet",
        as_json=args.json,
    )


async def _list_orphans(settings: Settings, args: argparse.Namespace) -> None:
    """It aborts none."""
    async with open_redis(settings) as checkpoints, open_store(settings, checkpoints) as store:
        sweeper = OrphanSweeper(
            store=store,
            checkpoints=checkpoints,
            prefix=names.static_prefix(settings.s3_key_template),
            grace_s=settings.orphan_grace_seconds,
        )
        found = sorted(await sweeper.find(), key=lambda upload: upload.initiated_at)
        now = time.time()
        orphans = [
            _Orphan(one, await _size(store, one), sweeper.is_old(one, now))
            for one in found[: args.limit]
        ]
    show_list(
        orphans,
        fields=lambda one: one.fields(now),
        columns={
            "begun": lambda one: time_text(one.upload.initiated_at),
            "size": lambda one: "gone" if one.size is None else size_text(one.size),
            "what becomes of it": lambda one: one.fate,
            "key": lambda one: plain(one.upload.key),
        },
        none="no orphans",
        as_json=args.json,
    )


async def _size(store: ObjectStore, upload: OpenUpload) -> int | None:
    try:
        parts = await store.list_parts(upload.key, upload.upload_id)
    except UploadGoneError:
        return None
    return sum(part.size for part in parts)


async def _show(
    checkpoints: CheckpointStore, stream: Stream, args: argparse.Namespace, settings: Settings
) -> None:
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
    """None, too, where nobody can be asked: all else is worth showing."""
    try:
        job = await desk_of(settings).find(job_id_of(stream.id, JobKind.HLS))
    except CefError:
        return None
    return watch_url_of(settings, job)


def _line_of(part: Part) -> str:
    return (
        f"part {part.number:<9} {part.size:>13} bytes  crc64 {part.crc64:016x}  "
        f"{time_text(part.uploaded_at)}  {printable(part.etag)}"
    )


async def _change(checkpoints: CheckpointStore, stream_id: str, args: argparse.Namespace) -> None:
    if args.action == "retry":
        await retry_stream(checkpoints, stream_id)
        done = "will be taken up again"
    else:
        await forget_stream(checkpoints, stream_id)
        done = "is forgotten"
    tell_done("stream", stream_id, done, as_json=args.json, done=True)
