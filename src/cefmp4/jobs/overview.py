"""What is told of jobs: each of them, and how the queues stand, of all workers together."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from cefmp4 import metrics
from cefmp4.jobs.ledger import RedisLedger
from cefmp4.log import redact
from cefmp4.model.job import LANES, Job, JobKind, JobState, QueueStats, SlotKind

MAX_RUNNING = 1000  # more are counted, but not by kind and slot


def fields_of(job: Job) -> dict[str, Any]:
    """For JSON. Error texts come from ffmpeg and servers; such as we show may name a signed
    address."""
    return job.to_fields() | {"error": redact(job.error)}


async def measure_queues(
    ledger: RedisLedger, kinds: Iterable[JobKind] = tuple(JobKind)
) -> dict[JobKind, QueueStats]:
    """Sets the metrics of the queues, too: whoever looked last knows best."""
    found: dict[JobKind, QueueStats] = {}
    for kind in kinds:
        lanes = [await ledger.stats(lane) for lane in LANES[kind]]
        found[kind] = stats = QueueStats(
            queued=sum(lane.queued for lane in lanes),
            waiting=sum(lane.waiting for lane in lanes),
            oldest_seconds=max(lane.oldest_seconds for lane in lanes),
        )
        metrics.queues_measured(
            kind,
            depth=stats.queued + stats.waiting,
            age_s=stats.oldest_seconds,
            workers=await ledger.workers(kind),
        )
    return found


async def overview(ledger: RedisLedger) -> dict[str, Any]:
    """For JSON."""
    queues = await measure_queues(ledger)
    running = await ledger.latest([JobState.IN_PROGRESS], MAX_RUNNING)
    counts = await ledger.counts()
    by_kind = Counter(job.kind for job in running)
    return {
        "depth": sum(stats.queued + stats.waiting for stats in queues.values()),
        "oldest_seconds": max(stats.oldest_seconds for stats in queues.values()),
        "running": counts[JobState.IN_PROGRESS],
        "slots_in_use": _slots_in_use(running),
        "states": counts,
        "kinds": {
            kind: {
                "depth": stats.queued + stats.waiting,
                "ready": stats.queued,
                "waiting": stats.waiting,
                "oldest_seconds": stats.oldest_seconds,
                "running": by_kind[kind],
            }
            for kind, stats in queues.items()
        },
    }


def _slots_in_use(running: list[Job]) -> dict[str, int]:
    """`none`: jobs that need no slot."""
    held = Counter(job.slot or "none" for job in running)
    return {slot: held[slot] for slot in (*SlotKind, "none")}
