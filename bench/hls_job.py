"""One HLS job on a worker process of its own: what it costs, and when its first segments are there.
The worker runs already, as workers do; what its start costs is told apart."""

import asyncio
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from temporalio.client import WorkflowFailureError

from bench import meter
from bench.engine import engine
from bench.place import Options, Place, place, scratch
from bench.service import Service
from cefmp4.hls.examined import ExaminedVideo
from cefmp4.hls.playlist import segment_name
from cefmp4.model.job import JobKind, JobSpec, input_of_file, subject_of
from cefmp4.model.rendition import RUNGS, CodecChoice, Rendition, ladder
from cefmp4.outputs.names import hls_prefix
from cefmp4.storage.s3.store import S3Config, open_s3_store
from cefmp4.temporal.connect import EngineClient
from cefmp4.temporal.desk import Desk

READY = "ready for jobs"
LOOK_S = 0.2  # seldom: the server that answers shares the cores
START_S = 60.0
TIMEOUT_S = 400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """Which renditions are made: as the worker is told, and as they come out."""

    codecs: CodecChoice = CodecChoice.BOTH
    rungs: tuple[int, ...] = RUNGS

    @property
    def settings(self) -> dict[str, str]:
        return {"HLS_CODEC": self.codecs, "HLS_RUNGS": ",".join(map(str, self.rungs))}

    def of(self, source: ExaminedVideo) -> tuple[Rendition, ...]:
        return ladder(source.video.picture, self.codecs, self.rungs)


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
    first_s: float | None = None  # until segment 0 of the awaited rendition was there


async def run_job(
    options: Options,
    source: Path,
    *,
    awaited: str = "",
    settings: dict[str, str] | None = None,
) -> JobCost:
    """`awaited`: a rendition for whose first segment the store is asked again and again."""
    with scratch(options.files) as folder:
        async with (
            place(options, jobs=True) as where,
            _worker(where, folder, settings or {}) as worker,
        ):
            client = await engine(where)
            await worker.until(READY, 1, START_S)
            start_cpu_s, spec = worker.cpu_s, await asyncio.to_thread(_spec, source)
            began = time.time()
            await Desk(client).submit(spec)
            looking = asyncio.create_task(_first_segment(where, spec.subject, awaited))
            try:
                result = await _result(client, spec.id, worker)
                ended = time.time()
            finally:
                looking.cancel()
            cpu_s = worker.cpu_s - start_cpu_s
            first = await looking if looking.done() else 0.0
            return JobCost(
                wall_s=ended - began,
                cpu_s=cpu_s,
                start_cpu_s=start_cpu_s,
                peak_rss=meter.peak_rss(worker.pid),
                media_bytes=int(result["bytes"]),
                tier=str(result["tier"]),
                renditions=tuple(result["renditions"]),
                first_s=first - began if first else None,
            )


def _worker(where: Place, folder: Path, settings: dict[str, str]) -> Service:
    # Encoders of a GPU are another matter; the rows compare what processors do.
    ours = {"HLS_GPU": "off", "WORKER_PORT": "0", "STATE_DIR": str(folder / "state")}
    program = (sys.executable, "-m", "cefmp4", "worker")
    ours["WATCH_DIR"] = "/"  # sources lie anywhere
    return Service(where, watch=folder, folder=folder, settings=ours | settings, program=program)


async def _result(client: EngineClient, job_id: str, worker: Service) -> dict[str, Any]:
    """The engine answers when it is there, and is not asked again and again."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            result: dict[str, Any] = await client.get_workflow_handle(job_id).result()
    except WorkflowFailureError as error:
        raise RuntimeError(f"the job failed: {error.cause} {worker.tail()}") from error
    return result


def _spec(path: Path) -> JobSpec:
    source = input_of_file(str(path), path.stat())
    return JobSpec(subject=subject_of(source), kind=JobKind.HLS, input=source, max_attempts=1)


async def _first_segment(where: Place, subject: str, rendition: str) -> float:
    """When it could be read, on the wall clock; 0 where none is awaited."""
    if not rendition:
        return 0.0
    config = S3Config(
        endpoint_url=where.endpoint_url,
        access_key=where.access_key,
        secret=where.secret_key,
        bucket=where.bucket,
        region=where.region,
    )
    prefix = hls_prefix(subject)
    async with open_s3_store(config) as store:
        while True:
            async for stored in store.list_objects(prefix):
                folder, _, name = stored.key.removeprefix(prefix).partition("/")
                if name == segment_name(0) and folder.rpartition(".")[0] == rendition:
                    await store.read(stored.key)
                    return time.time()
            await asyncio.sleep(LOOK_S)
