"""`cefmp4 jobs`: list, show, retry, cancel, submit or backfill jobs."""

import argparse
import json

from cefmp4.app.engine import desk_of
from cefmp4.commands.command_line import EXIT_NOT_SO, EXIT_OK, whole
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
from cefmp4.commands.jobs_wanted import fill, submit
from cefmp4.config.settings import Settings
from cefmp4.jobs.backfill import retry_failed
from cefmp4.jobs.overview import fields_of
from cefmp4.model.job import (
    MAX_PRIORITY,
    MOST_TELLING_FIRST,
    OFFERED_KINDS,
    JobKind,
    JobState,
    offered_kind,
)
from cefmp4.ports.jobs import JobDesk

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
    which = retrying.add_mutually_exclusive_group(required=True)
    which.add_argument("id", nargs="?", metavar="ID", help="the job id")
    which.add_argument(
        "--failed", action="store_true", help="all that failed, but were not cancelled"
    )
    cancelling = actions.add_parser("cancel", help="end a job that waits or runs")
    for action in (showing, cancelling):
        action.add_argument("id", metavar="ID", help="the job id")
    submitting = actions.add_parser("submit", help="queue a job for an object, file or stream")
    submitting.add_argument("what", metavar="WHAT", help="s3://BUCKET/KEY, a path, or a stream id")
    submitting.add_argument(
        "--priority",
        type=whole(-MAX_PRIORITY, MAX_PRIORITY),
        default=0,
        metavar="N",
        help=f"{-MAX_PRIORITY} to {MAX_PRIORITY}",
    )
    filling = actions.add_parser(
        "backfill", help="queue a job for every stored recording that lacks its result"
    )
    filling.add_argument(
        "--prefix", metavar="P", help="only keys that begin so (all that S3_KEY_TEMPLATE makes)"
    )
    filling.add_argument(
        "--with-made",
        action="store_true",
        help="also where there is a result: it is kept where STORAGE_TYPE says now, not made anew",
    )
    filling.add_argument("--dry-run", action="store_true", help="queue nothing, only say what")
    for action in (submitting, filling):
        action.add_argument(
            "--kind", type=_offered, default=JobKind.HLS, metavar="KIND", help="what to do (hls)"
        )
    for action in (listing, showing, retrying, cancelling, submitting, filling):
        action.add_argument("--json", action="store_true", help="JSON, one object a line")


async def run(args: argparse.Namespace, settings: Settings) -> int:
    desk = desk_of(settings)
    if args.action == "ls":
        await _list(desk, args)
    elif args.action == "show":
        await _show(desk, args, settings)
    elif args.action == "submit":
        await submit(desk, args, settings)
    elif args.action == "backfill":
        await fill(desk, args, settings)
    elif args.action == "retry" and args.failed:
        return await _retry_failed(desk, as_json=args.json)
    elif args.action == "retry":
        await desk.retry(args.id)
        tell_done("job", args.id, "is queued again", as_json=args.json, done=True)
    else:
        before = await desk.cancel(args.id)
        done = "is cancelled" if before is JobState.QUEUED else "is told to stop"
        tell_done("job", args.id, done, as_json=args.json, done=True)
    return 0


async def _list(desk: JobDesk, args: argparse.Namespace) -> None:
    jobs = await desk.latest([args.state] if args.state else MOST_TELLING_FIRST, args.limit)
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


async def _show(desk: JobDesk, args: argparse.Namespace, settings: Settings) -> None:
    job = await desk.get(args.id)
    facts = fields_of(job) | {"watch_url": watch_url_of(settings, job)}
    if args.json:
        print(json.dumps(facts | {"attempt_names": job.attempt_names, "params": job.spec.params}))
        return
    show_facts(facts, width=16)


async def _retry_failed(desk: JobDesk, *, as_json: bool) -> int:
    def tell(job_id: str, refused: str) -> None:
        if as_json:
            print(json.dumps({"id": job_id, "done": not refused, "reason": refused}))
        elif refused:
            print(f"job {job_id} stays: {refused}")
        else:
            print(f"job {job_id} is queued again")

    done = await retry_failed(desk, MAX_LIMIT, tell=tell)
    if not as_json:
        left = f"; {done.cancelled} that were cancelled stay" if done.cancelled else ""
        print(f"{done.begun} queued again, {done.refused} not{left}")
    return EXIT_NOT_SO if done.refused else EXIT_OK


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
