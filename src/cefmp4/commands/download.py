"""`cefmp4 download`: objects, all below a prefix, or a stream's, to local files."""

import argparse
from collections.abc import Iterable
from pathlib import Path

from cefmp4.app.clients import open_redis_if_there, open_store
from cefmp4.commands.transfers import Teller, add_common_arguments, telling
from cefmp4.config.settings import Settings
from cefmp4.errors import CefError, RefusedError, ServerUnreachableError, SettingsError
from cefmp4.ingest.operator import find_stream
from cefmp4.model.names import stream_id_in
from cefmp4.model.object import PartProof, StoreProof
from cefmp4.ports.checkpoints import CheckpointStore
from cefmp4.transfer import download_files
from cefmp4.transfer.result import failed

# As nearly all servers are. Who only reads may not be able to try it out.
PRESUMED = StoreProof(part=PartProof.ETAG, full_object_crc=True, etag_is_md5=True)
_S3 = "s3://"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what",
        nargs="+",
        metavar="KEY|PREFIX/|ID|s3://BUCKET/KEY",
        help="an object, all objects below a prefix, or the object of a stream",
    )
    parser.add_argument(
        "--to", type=Path, default=Path(), metavar="DIR", help="the folder to write to (this one)"
    )
    add_common_arguments(parser)


async def run(args: argparse.Namespace, settings: Settings) -> int:
    _make(args.to)
    async with open_redis_if_there(settings) as checkpoints:
        with telling(as_json=args.json) as teller:
            wanted = await _by_bucket(args.what, settings.s3_bucket_name, checkpoints, teller)
            for bucket, keys in wanted.items():
                try:
                    async with open_store(
                        settings.model_copy(update={"s3_bucket_name": bucket}),
                        checkpoints,
                        will_write=False,
                        presumed=PRESUMED,
                    ) as store:
                        await download_files(
                            store,
                            keys,
                            to=args.to,
                            overwrite=args.overwrite,
                            at_once=settings.max_parts_in_flight,
                            on_result=teller.hear,
                            on_bytes=teller.count,
                        )
                except SettingsError as error:
                    if bucket == settings.s3_bucket_name:
                        raise
                    for key in keys:
                        teller.hear(failed("", f"{_S3}{bucket}/{key}", error))
    return teller.exit_code


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"--to {folder}: {error.strerror}") from None


async def _by_bucket(
    words: Iterable[str], bucket: str, checkpoints: CheckpointStore | None, teller: Teller
) -> dict[str, list[str]]:
    """Their keys. What names none is told of at once."""
    found: dict[str, list[str]] = {}
    for word in words:
        try:
            place, key = await _place_of(word, bucket, checkpoints)
        except CefError as error:
            teller.hear(failed("", word, error))
        else:
            found.setdefault(place, []).append(key)
    return found


async def _place_of(word: str, bucket: str, checkpoints: CheckpointStore | None) -> tuple[str, str]:
    if word.startswith(_S3):
        place, _, key = word.removeprefix(_S3).partition("/")
        if not place:
            raise RefusedError("it names no bucket", hint="write s3://BUCKET/KEY")
        return place, key or "/"
    if word != stream_id_in(word):
        return bucket, word
    if checkpoints is None:
        raise ServerUnreachableError("only Redis knows streams", hint="check REDIS_URL")
    stream = await find_stream(checkpoints, word)
    if not stream.is_proven:
        raise RefusedError(f"the stream is {stream.state}: its object is not proven yet")
    return bucket, stream.key
