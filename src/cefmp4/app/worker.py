"""The composition root of the worker: clients, procedures and slots, and the engine's workers."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import structlog

from cefmp4 import metrics, proc
from cefmp4.app.clients import open_store
from cefmp4.app.engine import check_named, desk_of, reach_engine
from cefmp4.app.gpu_slots import usable_slots
from cefmp4.app.results import open_results
from cefmp4.app.sources import feeders, open_sources, reporters
from cefmp4.config.settings import Settings
from cefmp4.config.sources import SourceType
from cefmp4.config.worker import GpuUse
from cefmp4.hls.encode import HlsOptions
from cefmp4.hls.encoders import EncoderChooser
from cefmp4.hls.make import HlsEncoder
from cefmp4.hls_job import HlsJobs
from cefmp4.jobs.callbacks.sender import open_sender
from cefmp4.jobs.slots import Slots
from cefmp4.jobs.sources.feeder import feeding
from cefmp4.jobs.steps import Host, JobProcedure
from cefmp4.jobs.workplace import open_workplace
from cefmp4.media.ffmpeg_run import RunLimits
from cefmp4.media.ffprobe import Ffprobe
from cefmp4.model.job import CALLBACK, JobEnd, JobKind, JobSpec, SlotKind
from cefmp4.ports.sources import JobSource
from cefmp4.reachability import POSTGRES, S3, SQS, SURREALDB, TEMPORAL, tell_of_outages
from cefmp4.tasks import cut_by
from cefmp4.temporal.worker import working
from cefmp4.web.api import worker_routes
from cefmp4.web.listener import listening
from cefmp4.web.probes import Health, Probes
from cefmp4.web.webhook import Webhook, taking_webhooks

log = structlog.get_logger()

RELEASING_S = 15.0  # with a store that is away


async def work(
    settings: Settings,
    *,
    kinds: Sequence[JobKind],
    slots: Mapping[SlotKind, int],
    stop: asyncio.Event,
    port: int | None = None,
    asks_sources: bool = False,
    on_complete: Callable[[JobSpec], None] = lambda _spec: None,
) -> None:
    """Takes jobs until `stop`. Metrics and health are on `port`; None: this process has them
    elsewhere. `asks_sources`: and has those begun that the sources offer. `on_complete` is told of
    every job that is complete here."""
    check_named(settings)
    if settings.wants_postgres:
        _ = settings.needed_database_address  # before anything is waited for
    metrics.disk_folders.update(state_dir=settings.state_dir)
    async with AsyncExitStack() as stack:
        async with cut_by(stop):
            if port is not None:
                await stack.enter_async_context(_answering(settings, port))
                if SourceType.WEBHOOK in settings.job_source_type:
                    webhook = Webhook(settings, desk_of(settings))
                    await stack.enter_async_context(taking_webhooks(settings, webhook))
            sources = await stack.enter_async_context(open_sources(settings, will_ask=asks_sources))
            host = await _open_host(settings, stack, kinds, slots, sources, on_complete)
            client = await reach_engine(settings)
            await stack.enter_async_context(
                working(client, host, drain_s=settings.worker_drain_seconds)
            )
            if asks_sources:
                found = feeders(settings, sources, desk_of(settings))
                await stack.enter_async_context(feeding(found))
            log.info("ready for jobs", kinds=",".join(host.procedures), slots=str(host.slots))
        await stop.wait()


async def _open_host(
    settings: Settings,
    stack: AsyncExitStack,
    kinds: Sequence[JobKind],
    slots: Mapping[SlotKind, int],
    sources: list[JobSource],
    on_complete: Callable[[JobSpec], None],
) -> Host:
    store = await stack.enter_async_context(open_store(settings))
    results = await stack.enter_async_context(open_results(settings, store))
    tell_of_outages()
    sender = await stack.enter_async_context(open_sender(settings))
    workplace = stack.enter_context(
        open_workplace(settings.state_dir / "work", reserve_bytes=settings.work_reserve_bytes)
    )
    use_gpu = settings.hls_gpu is GpuUse.AUTO
    chooser = EncoderChooser(program=settings.ffmpeg_path, use_gpu=use_gpu)
    hls = HlsJobs(
        store=store,
        bucket=settings.s3_bucket_name,
        encoder=_encoder(settings, chooser),
        results=results,
        watch_dir=str(settings.watch_dir.resolve()),
    )
    known: dict[JobKind, JobProcedure] = {JobKind.HLS: hls.procedure}
    procedures = {kind: known[kind] for kind in kinds if kind in known}
    told: dict[str, Callable[[JobEnd], Awaitable[None]]] = {**reporters(sources)}
    if sender is not None:
        procedures[JobKind.CALLBACK] = sender.procedure
        told[CALLBACK] = sender.report
    return Host(
        procedures=procedures,
        slots=Slots(await usable_slots(slots, chooser, settings.hls_codec, use_gpu=use_gpu)),
        workplace=workplace,
        on_complete=on_complete,
        reporters=told,
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


@asynccontextmanager
async def _answering(settings: Settings, port: int) -> AsyncIterator[None]:
    """Metrics and health of a worker that has a port of its own."""

    def health() -> Health:
        reached = (S3, TEMPORAL, POSTGRES, SQS, SURREALDB)
        return Health(waiting_for=tuple(why for one in reached for why in one.troubles))

    routes = [*Probes(health).routes(), *worker_routes(desk_of(settings), health)]
    async with listening(settings, port, routes, setting="WORKER_PORT") as taken:
        log.info("metrics and health", host=settings.http_host, port=taken)
        yield
