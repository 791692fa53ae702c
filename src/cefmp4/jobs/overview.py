"""What is told of jobs: each of them, and how the queues stand, of all workers together."""

import asyncio
from collections import Counter
from collections.abc import Iterable
from math import ceil
from statistics import median
from typing import Any

from cefmp4 import metrics
from cefmp4.errors import CefError
from cefmp4.jobs.sources.feeder import SOURCES
from cefmp4.log import redact, redact_all
from cefmp4.model.job import OFFERED_KINDS, FailReason, Job, JobKind, JobState, QueueStats, SlotKind
from cefmp4.ports.jobs import JobDesk

MAX_RUNNING = 200  # more are counted, but not by kind and slot
LAST = 200  # ended jobs of which times and rates are made


def fields_of(job: Job) -> dict[str, Any]:
    """For JSON. Error texts come from ffmpeg and servers; such as we show may name a signed
    address."""
    return job.to_fields() | {"error": redact(job.error), "result": redact_all(job.result)}


async def measure_queues(
    desk: JobDesk, kinds: Iterable[JobKind] = OFFERED_KINDS
) -> dict[JobKind, QueueStats]:
    """Sets the metrics of the queues, too: whoever looked last knows best."""
    found: dict[JobKind, QueueStats] = {}
    for kind in kinds:
        try:
            found[kind] = stats = await desk.queue(kind)
        except (CefError, asyncio.CancelledError):
            metrics.queues_unknown()
            raise
        metrics.queues_measured(
            kind,
            depth=stats.depth,
            age_s=stats.oldest_seconds,
            workers=stats.workers,
        )
    return found


async def overview(desk: JobDesk) -> dict[str, Any]:
    """For JSON."""
    queues = await measure_queues(desk)
    running = await desk.latest([JobState.IN_PROGRESS], MAX_RUNNING)
    counts = await desk.counts()
    by_kind = Counter(job.kind for job in running)
    return {
        "depth": sum(stats.depth for stats in queues.values()),
        "oldest_seconds": max(stats.oldest_seconds for stats in queues.values()),
        "running": counts[JobState.IN_PROGRESS],
        "slots_in_use": _slots_in_use(running),
        "sources": sources(),
        "states": counts,
        "kinds": {
            kind: {
                "depth": stats.depth,
                "ready": stats.queued,
                "waiting": stats.waiting,
                "oldest_seconds": stats.oldest_seconds,
                "running": by_kind[kind],
            }
            for kind, stats in queues.items()
        },
    }


async def figures(desk: JobDesk) -> dict[str, Any]:
    """For JSON. Times are from the order until the result could be used, waits included."""
    queues = await measure_queues(desk)
    kinds = {}
    by_source: dict[str, list[Job]] = {name: [] for name in SOURCES}
    for kind, queue in queues.items():
        complete = await desk.latest([JobState.COMPLETE], LAST, kind)
        failed = await desk.latest([JobState.FAILED], LAST, kind)
        for job in (*complete, *failed):
            by_source.setdefault(job.spec.source, []).append(job)
        counts = await desk.counts(kind)
        kinds[kind] = {
            "depth": queue.depth,
            "oldest_seconds": queue.oldest_seconds,
            "workers": queue.workers,
            "running": counts[JobState.IN_PROGRESS],
            "complete": counts[JobState.COMPLETE],
            "failed": counts[JobState.FAILED],
            **_times_of(complete),
            **_rate_of([*complete, *failed]),
        }
    seen = sources()
    told = {name: seen.get(name, {}) | _rate_of(jobs) for name, jobs in by_source.items() if name}
    return {"kinds": kinds, "sources": told}


def sources() -> dict[str, Any]:
    """Those that this process asks."""
    return {name: seen.to_fields() for name, seen in SOURCES.items()}


def _times_of(complete: list[Job]) -> dict[str, Any]:
    times = sorted(job.ended_at - job.submitted_at for job in complete)
    return {
        "median_seconds": median(times) if times else None,
        "p95_seconds": times[max(0, ceil(0.95 * len(times)) - 1)] if times else None,
        "times_of": len(times),
    }


def _rate_of(ended: list[Job]) -> dict[str, Any]:
    """Those that somebody cancelled say nothing."""
    counted = [job for job in ended if job.reason is not FailReason.CANCELLED]
    latest = sorted(counted, key=lambda job: job.ended_at, reverse=True)[:LAST]
    good = sum(job.is_complete for job in latest)
    return {"success_rate": good / len(latest) if latest else None, "rate_of": len(latest)}


def _slots_in_use(running: list[Job]) -> dict[str, int]:
    """`none`: jobs that need no slot."""
    held = Counter(job.slot or "none" for job in running)
    return {slot: held[slot] for slot in (*SlotKind, "none")}
