"""`cefmp4 upload`: local files, or all below a folder, to the bucket."""

import argparse

from cefmp4.app.clients import open_redis_if_there, open_store
from cefmp4.commands.transfers import add_common_arguments, telling
from cefmp4.config.settings import Settings
from cefmp4.errors import RefusedError
from cefmp4.model.part import PartPlan
from cefmp4.transfer import upload_files
from cefmp4.transfer.notes import UploadNotes
from cefmp4.transfer.places import key_of
from cefmp4.trust import check_trusted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="a file, or a folder for all below it"
    )
    parser.add_argument(
        "--prefix",
        type=_prefix,
        default="",
        metavar="PREFIX",
        help="what comes before their names in the keys",
    )
    add_common_arguments(parser)


def _prefix(text: str) -> str:
    try:
        key_of("name", text)
    except RefusedError:
        raise argparse.ArgumentTypeError(f"{text!a}: no key of ours begins so") from None
    return text


async def run(args: argparse.Namespace, settings: Settings) -> int:
    check_trusted(settings.state_dir, "STATE_DIR", also_parents=False)
    notes = UploadNotes(
        settings.state_dir / "uploads", f"{settings.s3_endpoint_url}|{settings.s3_bucket_name}"
    )
    async with (
        open_redis_if_there(settings) as checkpoints,
        open_store(settings, checkpoints) as s3,
    ):
        with telling(as_json=args.json) as teller:
            await upload_files(
                s3,
                args.paths,
                prefix=args.prefix,
                overwrite=args.overwrite,
                at_once=settings.max_parts_in_flight,
                plan=PartPlan(settings.chunk_size_bytes, settings.part_sizing),
                notes=notes,
                on_result=teller.hear,
                on_bytes=teller.count,
            )
    return teller.exit_code
