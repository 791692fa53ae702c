"""The composition root of the worker: clients, procedures and slots, around one JobRunner."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial

import structlog

from cefmp4 import metrics, proc
from cefmp4.app.clients import open_redis, open_store
from cefmp4.app.gpu_slots import usable_slots
from cefmp4.app.http_server import servers_away
from cefmp4.config.settings import Settings
from cefmp4.config.worker import GpuUse
from cefmp4.hls.encode import HlsOptions
from cefmp4.hls.encoders import EncoderChooser
from cefmp4.hls.make import HlsEncoder
from cefmp4.hls_job import HlsJobs
from cefmp4.jobs.attempt import JobProcedure
from cefmp4.jobs.queue import open_jobs
from cefmp4.jobs.results import ObjectResults
from cefmp4.jobs.slots import Slots
from cefmp4.jobs.workplace import open_workplace
from cefmp4.media.ffmpeg_run import RunLimits
from cefmp4.media.ffprobe import Ffprobe
from cefmp4.model.job import Job, JobKind, SlotKind
from cefmp4.reachability import tell_of_outages
from cefmp4.storage.redis.owner import is_dead, owner_id
from cefmp4.tasks import cut_by
from cefmp4.web.listener import listening
from cefmp4.web.probes import Health, Probes
from cefmp4.worker import JobRunner

log = structlog.get_logger()

RELEASING_S = 15.0  # with a Redis that is away, see JobRunner
STALLED_S = 300.0  # clearing away what a large job left takes minutes on a slow store


async def work(
    settings: Settings,
    *,
    kinds: Sequence[JobKind],
    slots: Mapping[SlotKind, int],
    stop: asyncio.Event,
    port: int | None = None,
    on_complete: Callable[[Job], None] = lambda _job: None,
) -> None:
    """Takes jobs until `stop`. Metrics and health are on `port`; None: this process has them
    elsewhere. `on_complete` is told of every job that is complete here."""
    metrics.disk_folders.update(state_dir=settings.state_dir)
    async with AsyncExitStack() as stack:
        async with cut_by(stop):
            runner = await _open_runner(settings, stack, kinds, slots, on_complete)
            if port is not None:
                taken = await stack.enter_async_context(
                    listening(
                        settings,
                        port,
                        Probes(partial(_health, runner)).routes(),
                        setting="WORKER_PORT",
                    )
                )
                log.info("metrics and health", host=settings.http_host, port=taken)
        if not stop.is_set():
            await runner.run(stop)


async def _open_runner(
    settings: Settings,
    stack: AsyncExitStack,
    kinds: Sequence[JobKind],
    slots: Mapping[SlotKind, int],
    on_complete: Callable[[Job], None],
) -> JobRunner:
    checkpoints = await stack.enter_async_context(open_redis(settings))
    store = await stack.enter_async_context(open_store(settings, checkpoints))
    tell_of_outages()
    queue = await stack.enter_async_context(
        open_jobs(settings.needed_redis_address, lease_seconds=settings.lease_seconds)
    )
    workplace = stack.enter_context(
        open_workplace(settings.state_dir / "work", reserve_bytes=settings.work_reserve_bytes)
    )
    use_gpu = settings.hls_gpu is GpuUse.AUTO
    chooser = EncoderChooser(program=settings.ffmpeg_path, use_gpu=use_gpu)
    hls = HlsJobs(
        store=store,
        bucket=settings.s3_bucket_name,
        encoder=_encoder(settings, chooser),
        results=ObjectResults(store, queue.ledger),
        watch_dir=str(settings.watch_dir.resolve()),
    )
    procedures: dict[JobKind, JobProcedure] = {JobKind.HLS: hls.procedure}
    return JobRunner(
        queue=queue,
        procedures={kind: procedures[kind] for kind in kinds if kind in procedures},
        slots=Slots(await usable_slots(slots, chooser, settings.hls_codec, use_gpu=use_gpu)),
        workplace=workplace,
        owner=owner_id(settings.host),
        is_dead=is_dead,
        drain_s=settings.worker_drain_seconds,
        on_complete=on_complete,
    )


def stop_s(settings: Settings) -> float:
    """How long a stop of a process that may have jobs takes at most."""
    return max(settings.shutdown_timeout_seconds, settings.worker_drain_seconds + RELEASING_S)


def slots_of(settings: Settings) -> dict[SlotKind, int]:
    return {SlotKind.GPU: settings.gpu_slots, SlotKind.CPU: settings.cpu_slots}


def _encoder(settings: Settings, chooser: EncoderChooser) -> HlsEncoder:
    return HlsEncoder(
        chooser=chooser,
        options=HlsOptions(
            program=settings.ffmpeg_path,
            codecs=settings.hls_codec,
            rungs=settings.hls_rungs,
            may_copy=settings.hls_remux,
            has_thumbnails=settings.hls_thumbnails,
            timeout_s=settings.hls_timeout_hours * 3600,
            ffprobe=Ffprobe(
                program=settings.ffprobe_path,
                timeout_s=settings.ffprobe_timeout_seconds,
                memory_bytes=settings.ffprobe_memory_bytes,
            ),
            limits=RunLimits(
                # With all of it, the machine would swap, or end whatever it likes, before we
                # notice.
                memory_bytes=settings.ffmpeg_memory_bytes or proc.machine_memory_bytes() * 3 // 4
            ),
        ),
    )


def _health(runner: JobRunner) -> Health:
    standing = time.monotonic() - runner.last_step_at
    waiting = servers_away()
    if not runner.is_taking_jobs:
        waiting.append("no jobs are taken now")
    return Health(
        stalled=("the look at the queue",) if standing > STALLED_S else (),
        waiting_for=tuple(waiting),
    )
