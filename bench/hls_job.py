"""One HLS job on a worker process of its own: what it costs, and when its first segments are there.
The worker runs already, as workers do; what its start costs is told apart."""

import asyncio
import itertools
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import hls_worker, meter
from bench.place import Options, Place, place, scratch
from bench.service import Service
from cefmp4.encode.playlist import segment_name
from cefmp4.encode.publish import hls_prefix
from cefmp4.jobs.queue import JobQueue, open_jobs
from cefmp4.model.job import JobKind, JobSpec, input_of_file, subject_of
from cefmp4.storage.s3 import S3Config, open_s3_store

READY, ENDED = "ready for jobs", "job ended"
LOOK_S = 0.2  # seldom: the server that answers shares the cores
START_S = 60.0
TIMEOUT_S = 400.0
LEASE_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCost:
    """From the submitting to the published master playlist."""

    wall_s: float
    cpu_s: float  # of the worker and its children
    start_cpu_s: float  # not in it
    peak_rss: int  # of the worker process
    media_bytes: int
    tier: str
    renditions: tuple[str, ...]
    first_s: dict[str, float] = field(default_factory=dict)  # segment 0 of each rendition


async def run_job(
    options: Options,
    source: Path,
    *,
    only: Sequence[str] = (),
    sees_first: bool = False,
    settings: dict[str, str] | None = None,
) -> JobCost:
    """`only`: the renditions to make; without, all that are planned. `sees_first`: asks the store
    again and again for the first segments of those."""
    with scratch(options.files) as folder:
        async with (
            place(options) as where,
            _worker(where, folder, only, settings or {}) as worker,
            open_jobs(where.redis_url, lease_seconds=LEASE_S) as queue,
        ):
            await worker.until(READY, 1, START_S)
            start_cpu_s, spec = worker.cpu_s, await asyncio.to_thread(_spec, source)
            began = time.time()
            await queue.submit(spec)
            looking = asyncio.create_task(
                _first_segments(where, spec.subject, only if sees_first else ())
            )
            try:
                ended, result = await _ended(worker, queue, spec.id)
            finally:
                looking.cancel()
            cpu_s = worker.cpu_s - start_cpu_s
            first = await looking if looking.done() else {}
            return JobCost(
                wall_s=ended - began,
                cpu_s=cpu_s,
                start_cpu_s=start_cpu_s,
                peak_rss=meter.peak_rss(worker.pid),
                media_bytes=int(result["bytes"]),
                tier=str(result["tier"]),
                renditions=tuple(result["renditions"]),
                first_s={name: at - began for name, at in first.items()},
            )


def _worker(where: Place, folder: Path, only: Sequence[str], settings: dict[str, str]) -> Service:
    program = [sys.executable, str(Path(hls_worker.__file__)), *([",".join(only)] if only else [])]
    # Encoders of a GPU are another matter; the rows compare what processors do.
    ours = {"HLS_GPU": "off", "WORKER_PORT": "0", "STATE_DIR": str(folder / "state")}
    return Service(where, watch=folder, folder=folder, settings=ours | settings, program=program)


async def _ended(worker: Service, queue: JobQueue, job_id: str) -> tuple[float, dict[str, Any]]:
    """When the job was done, on the wall clock, and its result. A look at the source that finds
    that it needs an encoder ends, too."""
    for count in itertools.count(1):
        at = worker.started + await worker.until(ENDED, count, TIMEOUT_S)
        job = await queue.ledger.get(job_id)
        if job.is_final:
            break
    if job.result is None or not job.is_complete:
        raise RuntimeError(f"the job is {job.state}: {job.error} {worker.tail()}")
    return at, job.result


def _spec(path: Path) -> JobSpec:
    source = input_of_file(str(path), path.stat())
    return JobSpec(subject=subject_of(source), kind=JobKind.HLS, input=source, max_attempts=1)


async def _first_segments(
    where: Place, subject: str, renditions: Sequence[str]
) -> dict[str, float]:
    """When the first segment of each could be read: wall clock times."""
    config = S3Config(
        endpoint_url=where.endpoint_url,
        access_key=where.access_key,
        secret=where.secret_key,
        bucket=where.bucket,
        region=where.region,
    )
    prefix, seen = hls_prefix(subject), dict[str, float]()
    async with open_s3_store(config) as store:
        while set(seen) != set(renditions):
            async for stored in store.list_objects(prefix):
                folder, _, name = stored.key.removeprefix(prefix).partition("/")
                rendition = folder.rpartition(".")[0]
                if name == segment_name(0) and rendition in renditions and rendition not in seen:
                    await store.read(stored.key)
                    seen[rendition] = time.time()
            await asyncio.sleep(LOOK_S)
    return seen
