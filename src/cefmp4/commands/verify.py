"""`cefmp4 verify`: reads objects back and compares them with local files, part by part."""

import argparse
import asyncio
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from cefmp4.app.clients import open_redis, open_store
from cefmp4.config.settings import Settings
from cefmp4.errors import CefError, SourceError
from cefmp4.ingest.folder import names_of
from cefmp4.log import printable
from cefmp4.model.part import MAX_PART_BYTES, MIN_PART_BYTES, PartPlan
from cefmp4.model.stream import Stream
from cefmp4.ports.store import ObjectStore
from cefmp4.recording.digests import READ_BYTES, ShortFileError, crc_of, hash_range
from cefmp4.recording.file import SourceFile

COMPARE_BYTES = 8 * READ_BYTES  # one ranged read of the object, so that memory stays bounded


@dataclass(frozen=True, slots=True)
class Verdict:
    path: str
    key: str
    identical: bool
    detail: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "paths", nargs="*", metavar="PATH", help="files in the watched folder; none: all of them"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


async def run(args: argparse.Namespace, settings: Settings) -> int:
    root = str(settings.watch_dir.resolve())
    async with (
        open_redis(settings) as checkpoints,
        open_store(settings, checkpoints, will_write=False) as store,
    ):
        wanted = [_relative(path, root) for path in args.paths]
        names = await asyncio.to_thread(names_of, root, settings.watch_dir_id)
        streams = {
            stream.relpath: stream
            for name in names
            for stream in await checkpoints.load_streams(name)
        }
        paths = wanted or sorted(path for path, stream in streams.items() if stream.is_proven)
        different = 0
        for relpath in paths:
            verdict = await _verify(relpath, streams.get(relpath), root, store)
            different += not verdict.identical
            _show(verdict, as_json=args.json)
    if not args.json:
        print(f"{len(paths) - different} of {len(paths)} identical")
    return 1 if different else 0


def _relative(path: str, root: str) -> str:
    given = Path(path)
    if not given.is_absolute() and (Path(root) / given).exists():
        return path
    try:
        return str(Path(given.absolute()).relative_to(root))
    except ValueError:
        return path


async def _verify(relpath: str, stream: Stream | None, root: str, store: ObjectStore) -> Verdict:
    if stream is None or not stream.is_proven:
        return Verdict(relpath, "", False, "no object is known for this file")
    try:
        with await asyncio.to_thread(SourceFile.open, root, relpath) as source:
            detail = await _compare(source, stream, store)
    except FileNotFoundError:
        return Verdict(relpath, stream.key, False, "there is no such local file")
    except (SourceError, CefError) as error:
        return Verdict(relpath, stream.key, False, str(error))
    return Verdict(relpath, stream.key, not detail, detail)


async def _compare(source: SourceFile, stream: Stream, store: ObjectStore) -> str:
    """What differs, in words; empty when nothing does."""
    stored = await store.head(stream.key)
    if stored is None:
        return "the object does not exist"
    size = source.stamp().size
    if stored.size != size:
        return f"the object has {stored.size} bytes, the file {size}"
    base = min(max(stream.part_base, MIN_PART_BYTES), MAX_PART_BYTES)
    wrong = [
        str(cut.number)
        for cut in PartPlan(base, stream.part_sizing).ranges_for(size)
        if not await _is_same(source, stream.key, cut.start, cut.end, store)
    ]
    return f"other bytes in part {', '.join(wrong)}" if wrong else ""


async def _is_same(source: SourceFile, key: str, start: int, end: int, store: ObjectStore) -> bool:
    for offset in range(start, end, COMPARE_BYTES):
        until = min(offset + COMPARE_BYTES, end)
        try:
            local = await asyncio.to_thread(hash_range, source.fd, offset, until)
        except ShortFileError:
            return False
        if crc_of(await store.read(key, offset, until)) != local:
            return False
    return True


def _show(verdict: Verdict, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(verdict)))
    elif verdict.identical:
        print(f"identical  {printable(verdict.path)}")
    else:
        print(f"DIFFERENT  {printable(verdict.path)}: {verdict.detail}")
