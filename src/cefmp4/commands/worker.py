"""`cefmp4 worker`: takes jobs. Start as many as there are hosts; they share one Temporal and one
S3 server; none of them needs Redis."""

import argparse

from cefmp4.app.lifetime import stop_of_signals
from cefmp4.app.worker import slots_of, stop_s, work
from cefmp4.commands.command_line import whole
from cefmp4.config.settings import Settings
from cefmp4.config.sources import POLLED_SOURCES
from cefmp4.errors import SettingsError
from cefmp4.model.job import OFFERED_KINDS, JobKind, SlotKind

MAX_SLOTS = 64
# Whoever has WEBHOOK_URL calls back, whatever else it does.
KINDS = tuple(kind for kind in JobKind if kind is not JobKind.CALLBACK)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--kinds",
        type=_kinds,
        default=KINDS,
        metavar="KIND,KIND",
        help=f"the kinds of jobs to take ({','.join(KINDS)})",
    )
    parser.add_argument(
        "--gpu-slots",
        type=whole(0, MAX_SLOTS),
        metavar="N",
        help="jobs that use the GPU at the same moment (GPU_SLOTS)",
    )
    parser.add_argument(
        "--cpu-slots",
        type=whole(0, MAX_SLOTS),
        metavar="N",
        help="jobs that use the CPU at the same moment (CPU_SLOTS)",
    )
    parser.add_argument(
        "--sources",
        action="store_true",
        help="have jobs begun that the databases and queues in JOB_SOURCE_TYPE offer, too",
    )


async def run(args: argparse.Namespace, settings: Settings) -> int:
    slots = slots_of(settings)
    if args.gpu_slots is not None:
        slots[SlotKind.GPU] = args.gpu_slots
    if args.cpu_slots is not None:
        slots[SlotKind.CPU] = args.cpu_slots
    stop = stop_of_signals(stop_s(settings))
    if args.sources and not settings.polled_sources:
        raise SettingsError(
            f"--sources: JOB_SOURCE_TYPE={','.join(settings.job_source_type)} names none to ask",
            hint=f"add {' or '.join(POLLED_SOURCES)}",
        )
    await work(
        settings,
        kinds=args.kinds,
        slots=slots,
        stop=stop,
        port=settings.worker_port,
        asks_sources=args.sources,
    )
    return 0


def _kinds(text: str) -> tuple[JobKind, ...]:
    words = [word.strip() for word in text.split(",")]
    if unknown := [word for word in words if word not in KINDS]:
        raise argparse.ArgumentTypeError(
            f"{unknown[0]!a} is no kind of job; allowed are {','.join(KINDS)}"
        )
    kinds = tuple(JobKind(word) for word in words)
    if not set(kinds) & set(OFFERED_KINDS):
        raise argparse.ArgumentTypeError(
            f"no worker does {text} jobs yet; name at least one of {','.join(OFFERED_KINDS)}"
        )
    return tuple(dict.fromkeys(kinds))
