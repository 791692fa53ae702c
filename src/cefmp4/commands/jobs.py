"""`cefmp4 jobs`: list, show, retry, cancel or submit jobs."""

import argparse
import asyncio
import json
from pathlib import Path

from cefmp4.app.clients import input_of_object
from cefmp4.commands.command_line import whole
from cefmp4.commands.display import (
    job_state_text,
    plain,
    progress_text,
    show_facts,
    show_list,
    tell_done,
    time_text,
    watch_url_of,
)
from cefmp4.config.settings import Settings
from cefmp4.errors import RefusedError, UnknownStreamError
from cefmp4.ingest.operator import find_stream
from cefmp4.jobs.ledger import RedisLedger, open_ledger
from cefmp4.jobs.overview import fields_of
from cefmp4.model.job import (
    MAX_PRIORITY,
    MOST_TELLING_FIRST,
    OFFERED_KINDS,
    JobInput,
    JobKind,
    JobSpec,
    JobState,
    input_of_file,
    input_of_stream,
    offered_kind,
    subject_of,
)
from cefmp4.storage.redis.checkpoints import open_checkpoints

MAX_LIMIT = 100_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("ls", help="the jobs: running, waiting, failed, complete")
    listing.add_argument(
        "--state", type=_state, metavar="STATE", help=f"only these: {', '.join(JobState)}"
    )
    listing.add_argument(
        "--limit", type=whole(1, MAX_LIMIT), default=50, metavar="N", help="how many (50)"
    )
    showing = actions.add_parser("show", help="everything that is known of one job")
    retrying = actions.add_parser("retry", help="queue a failed job again, with all its attempts")
    cancelling = actions.add_parser("cancel", help="end a job that waits or runs")
    for action in (showing, retrying, cancelling):
        action.add_argument("id", metavar="ID", help="the job id")
    submitting = actions.add_parser("submit", help="queue a job for an object, file or stream")
    submitting.add_argument("what", metavar="WHAT", help="s3://BUCKET/KEY, a path, or a stream id")
    submitting.add_argument(
        "--kind", type=_offered, default=JobKind.HLS, metavar="KIND", help="what to do (hls)"
    )
    submitting.add_argument(
        "--priority",
        type=whole(-MAX_PRIORITY, MAX_PRIORITY),
        default=0,
        metavar="N",
        help=f"{-MAX_PRIORITY} to {MAX_PRIORITY}",
    )
    for action in (listing, showing, retrying, cancelling, submitting):
        action.add_argument("--json", action="store_true", help="JSON, one object a line")


async def run(args: argparse.Namespace, settings: Settings) -> int:
    address = settings.needed_redis_address
    if args.action in {"retry", "submit"}:
        return await _enqueue(address, args, settings)
    async with open_ledger(address, lease_seconds=settings.lease_seconds) as ledger:
        if args.action == "ls":
            await _list(ledger, args)
        elif args.action == "show":
            await _show(ledger, args, settings)
        else:
            before = await ledger.cancel(args.id)
            done = "is cancelled" if before is JobState.QUEUED else "is told to stop"
            tell_done("job", args.id, done, as_json=args.json, done=True)
    return 0


async def _list(ledger: RedisLedger, args: argparse.Namespace) -> None:
    jobs = await ledger.latest([args.state] if args.state else MOST_TELLING_FIRST, args.limit)
    show_list(
        jobs,
        fields=fields_of,
        columns={
            "id": lambda job: plain(job.id),
            "state": job_state_text,
            "done": progress_text,
            "tries": lambda job: f"{job.attempts}/{job.spec.max_attempts}",
            "changed": lambda job: time_text(job.updated_at),
            "input": lambda job: plain(job.spec.input.name),
        },
        none="no such jobs" if args.state else "no jobs yet",
        as_json=args.json,
    )


async def _show(ledger: RedisLedger, args: argparse.Namespace, settings: Settings) -> None:
    job = await ledger.get(args.id)
    facts = fields_of(job) | {"watch_url": watch_url_of(settings, job)}
    if args.json:
        print(json.dumps(facts | {"fences": job.fences, "params": job.spec.params}))
        return
    show_facts(facts, width=16)


async def _enqueue(address: str, args: argparse.Namespace, settings: Settings) -> int:
    # Here only: the engine takes longer to load than the other actions take to run.
    from cefmp4.jobs.queue import open_jobs

    async with open_jobs(address, lease_seconds=settings.lease_seconds) as queue:
        if args.action == "retry":
            await queue.retry(args.id)
            tell_done("job", args.id, "is queued again", as_json=args.json, done=True)
            return 0
        subject, source = await _input_of(address, args.what, settings)
        spec = JobSpec(
            subject=subject,
            kind=args.kind,
            input=source,
            priority=args.priority,
            max_attempts=settings.worker_max_attempts,
        )
        is_new = await queue.submit(spec)
        known = "is queued" if is_new else f"is known: {(await queue.ledger.get(spec.id)).state}"
        tell_done("job", spec.id, known, as_json=args.json, is_new=is_new)
    return 0


async def _input_of(address: str, what: str, settings: Settings) -> tuple[str, JobInput]:
    if what.startswith("s3://"):
        bucket, _, key = what.removeprefix("s3://").partition("/")
        if not bucket or not key:
            raise RefusedError(f"{what!a} names no object", hint="write s3://BUCKET/KEY")
        source = await input_of_object(settings, bucket, key)
        return subject_of(source), source
    file = await asyncio.to_thread(_input_of_file, Path(what), settings.watch_dir)
    if file is not None:
        return subject_of(file), file
    async with open_checkpoints(address, lease_seconds=settings.lease_seconds) as checkpoints:
        try:
            stream = await find_stream(checkpoints, what)
        except UnknownStreamError as error:
            raise UnknownStreamError(
                f"{what!a} is no file here and no stream",
                hint="write s3://BUCKET/KEY for an object",
            ) from error
    if not stream.is_proven:
        raise RefusedError(f"stream {stream.id} is {stream.state}: its object is not proven yet")
    folder = str(settings.watch_dir.resolve())
    return stream.id, input_of_stream(stream, bucket=settings.s3_bucket_name, folder=folder)


def _input_of_file(path: Path, watch_dir: Path) -> JobInput | None:
    if not path.is_file():
        return None
    if not path.resolve().is_relative_to(watch_dir.resolve()):
        raise RefusedError(
            f"{str(path)!a} is not in WATCH_DIR={watch_dir}, and workers read no file elsewhere",
            hint="put it there, or upload it and write s3://BUCKET/KEY",
        )
    return input_of_file(str(path.resolve()), path.stat())


def _state(text: str) -> JobState:
    if text not in set(JobState):
        raise argparse.ArgumentTypeError(f"{text!a}: allowed are {', '.join(JobState)}")
    return JobState(text)


def _offered(text: str) -> JobKind:
    found = offered_kind(text)
    if found is None:
        raise argparse.ArgumentTypeError(
            f"no worker does {text!a} jobs; allowed are {', '.join(OFFERED_KINDS)}"
        )
    return found
