"""`cefmp4 jobs submit` and `backfill`: what jobs are wanted of."""

import argparse
import asyncio
import json
import posixpath
from collections import Counter
from pathlib import Path

from cefmp4.app.clients import input_of_object, open_redis, open_store
from cefmp4.commands.display import progress_line, tell_done
from cefmp4.config.settings import Settings
from cefmp4.errors import RefusedError, UnknownStreamError
from cefmp4.ingest.operator import Finder
from cefmp4.jobs.backfill import Backfill, Found
from cefmp4.log import printable
from cefmp4.model import names
from cefmp4.model.job import (
    JobInput,
    JobSpec,
    input_of_file,
    input_of_stream,
    subject_of,
)
from cefmp4.model.part import PartPlan
from cefmp4.model.stream import Stream
from cefmp4.ports.jobs import JobDesk
from cefmp4.storage.redis.checkpoints import open_checkpoints

_SAID = {
    Found.SUBMITTED: "queued",
    Found.UNDER_WAY: "under way",
    Found.FAILED: "failed before (`cefmp4 jobs retry` tries again)",
    Found.NOT_PLAYABLE: "not playable",
    Found.MADE: "made already",
}
_QUIET = (Found.MADE, Found.NOT_PLAYABLE)  # they need nobody, and may be many


async def submit(desk: JobDesk, args: argparse.Namespace, settings: Settings) -> None:
    subject, source, folder = await _wanted(settings.needed_redis_address, args.what, settings)
    spec = JobSpec(
        subject=subject,
        kind=args.kind,
        input=source,
        priority=args.priority,
        max_attempts=settings.worker_max_attempts,
        folder=folder,
    )
    is_new = await desk.submit(spec)
    known = "is queued" if is_new else f"is known: {(await desk.get(spec.id)).state}"
    tell_done("job", spec.id, known, as_json=args.json, is_new=is_new)


async def fill(desk: JobDesk, args: argparse.Namespace, settings: Settings) -> None:
    """Again changes nothing, but for what was made away with since."""
    await desk.counts()  # is it there? Looking through a bucket may take a while
    prefix = args.prefix
    if prefix is None:
        prefix = names.static_prefix(settings.s3_key_template)
    async with (
        open_redis(settings) as checkpoints,
        open_store(settings, checkpoints, will_write=False) as store,
    ):
        backfill = Backfill(
            store=store,
            checkpoints=checkpoints,
            desk=desk,
            kind=args.kind,
            bucket=settings.s3_bucket_name,
            watch_dir=str(settings.watch_dir.resolve()),
            plan=PartPlan(settings.chunk_size_bytes, settings.part_sizing),
            max_attempts=settings.worker_max_attempts,
            with_made=args.with_made,
            is_dry=args.dry_run,
        )
        await _fill(backfill, prefix, as_json=args.json)


async def _fill(backfill: Backfill, prefix: str, *, as_json: bool) -> None:
    counts: Counter[Found] = Counter()
    with progress_line("looking for recordings", as_json=as_json) as show_line:
        streams = await backfill.recordings(prefix)

        def tell(stream: Stream, found: Found) -> None:
            counts[found] += 1
            show_line(f"{sum(counts.values())} of {len(streams)} recordings looked at")
            job_id = backfill.spec_of(stream).id
            if as_json:
                print(json.dumps({"id": job_id, "key": stream.key, "found": found}))
            elif found not in _QUIET:
                print(f"{job_id}  {_SAID[found]}  {printable(stream.key)}")

        await backfill.run(streams, tell)
    if not as_json:
        dry = ", nothing was queued (--dry-run)" if backfill.is_dry else ""
        told = ", ".join(f"{counts[found]} {found.replace('_', ' ')}" for found in Found)
        print(f"{len(streams)} recordings: {told}{dry}")


async def _wanted(address: str, what: str, settings: Settings) -> tuple[str, JobInput, str]:
    """The subject, the input and the folder it is of."""
    if what.startswith("s3://"):
        bucket, _, key = what.removeprefix("s3://").partition("/")
        if not bucket or not key:
            raise RefusedError(f"{what!a} names no object", hint="write s3://BUCKET/KEY")
        source = await input_of_object(settings, bucket, key)
        return subject_of(source), source, posixpath.dirname(key)
    async with open_checkpoints(address, lease_seconds=settings.lease_seconds) as checkpoints:
        stream = await Finder(checkpoints, settings.watch_dir, settings.watch_dir_id).find(what)
    file = await asyncio.to_thread(_input_of_file, Path(what), settings.watch_dir)
    is_other = file is not None and stream is not None and not _is_of(stream, file)
    if file is not None and (stream is None or is_other):
        return subject_of(file), file, _folder_of(file.path, settings.watch_dir)
    if stream is None:
        raise UnknownStreamError(
            f"{what!a} is no file here and no stream", hint="write s3://BUCKET/KEY for an object"
        )
    if not stream.is_proven:
        raise RefusedError(f"stream {stream.id} is {stream.state}: its object is not proven yet")
    top = str(settings.watch_dir.resolve())
    source = input_of_stream(stream, bucket=settings.s3_bucket_name, folder=top)
    return stream.id, source, posixpath.dirname(stream.relpath)


def _is_of(stream: Stream, file: JobInput) -> bool:
    """Whether it is the file, as it is now, that the stream is the recording of."""
    stamp = stream.stamp
    return stream.is_proven and stamp is not None and stamp.is_unchanged(file.stamp)


def _below(path: Path, watch_dir: Path) -> str | None:
    top = watch_dir.resolve()
    found = path.resolve()
    return str(found.relative_to(top)) if found.is_relative_to(top) else None


def _folder_of(path: str, watch_dir: Path) -> str:
    return posixpath.dirname(_below(Path(path), watch_dir) or "")


def _input_of_file(path: Path, watch_dir: Path) -> JobInput | None:
    if not path.is_file():
        return None
    if _below(path, watch_dir) is None:
        raise RefusedError(
            f"{str(path)!a} is not in WATCH_DIR={watch_dir}, and workers read no file elsewhere",
            hint="put it there, or upload it and write s3://BUCKET/KEY",
        )
    return input_of_file(str(path.resolve()), path.stat())
