"""The composition root: opens the clients, picks the adapters, builds the service around them."""

import asyncio
import gc
import os
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import structlog
from aiohttp.web import AbstractRouteDef

from cefmp4 import descriptors, metrics, refusals
from cefmp4.app.clients import JobsOnDemand, open_redis, open_store
from cefmp4.config.ingest import WatchMode
from cefmp4.config.settings import Settings
from cefmp4.ingest.active_files import ActiveFiles
from cefmp4.ingest.admission import Admission, Admitted, Naming
from cefmp4.ingest.after.completion import Completion
from cefmp4.ingest.after.describer import Describer
from cefmp4.ingest.after.handover import Handover
from cefmp4.ingest.after.local_file import LocalFilePolicy, archive_below, check_after_upload
from cefmp4.ingest.claims import Claims
from cefmp4.ingest.finalizer import Finalizer
from cefmp4.ingest.finished_index import FinishedIndex
from cefmp4.ingest.folder import FolderFinder, Found
from cefmp4.ingest.object_keys import ObjectKeys
from cefmp4.ingest.operator import find_view, forget_stream, retry_stream
from cefmp4.ingest.ownership import Ownership
from cefmp4.ingest.part_slots import PartSlots
from cefmp4.ingest.processor import StreamProcessor
from cefmp4.ingest.recover.adoption import Adoption
from cefmp4.ingest.recover.bucket_search import BucketSearch
from cefmp4.ingest.recover.orphans import OrphanSweeper
from cefmp4.ingest.recover.recovery import Recovery
from cefmp4.ingest.recover.startup import Startup
from cefmp4.ingest.router import StreamRouter
from cefmp4.ingest.rules import WaitingTimes
from cefmp4.ingest.service import IngestService
from cefmp4.ingest.sessions import IngestSessions
from cefmp4.ingest.uploader import Uploader
from cefmp4.ingest.writer_profile import WriterProfiles
from cefmp4.jobs.ledger import RedisLedger, open_ledger
from cefmp4.media.ffprobe import Ffprobe
from cefmp4.media.probe import MAX_ANSWER_BYTES, FfprobeMediaProbe
from cefmp4.model import names
from cefmp4.model.job import JobKind
from cefmp4.model.part import PartPlan
from cefmp4.ports.jobs import JobSink
from cefmp4.reachability import tell_of_outages
from cefmp4.recording.clocks import Clocks
from cefmp4.recording.identity import Identity
from cefmp4.recording.write_guard import WriteGuards
from cefmp4.stopping import cut_by, drain_s
from cefmp4.storage.redis.checkpoints import RedisCheckpointStore
from cefmp4.storage.redis.owner import owner_id
from cefmp4.storage.s3.store import S3Store
from cefmp4.watch.folder_scanner import FolderScanner
from cefmp4.watch.selection import Selection
from cefmp4.watch.walk import Limits
from cefmp4.watch.watcher import Watcher, choose_mode
from cefmp4.web.access import Access
from cefmp4.web.health import Health
from cefmp4.web.jobs import JobApi
from cefmp4.web.listener import max_connections
from cefmp4.web.media import Media
from cefmp4.web.server import Actions, HttpServer
from cefmp4.web.watch import Watch
from cefmp4.web.webhook import Webhook

log = structlog.get_logger()
T = TypeVar("T")

STALLED_S = 30.0  # a loop that has not turned for so long stands still
MAX_ACTIVE_STREAMS = 500  # each holds its file open
SPARE_FILES = 200
CLOCKS = Clocks(monotonic=time.monotonic, wall=time.time)


# The service.


def handover_kinds(settings: Settings) -> tuple[JobKind, ...]:
    return tuple(JobKind(kind) for kind in settings.handover_jobs)


@dataclass(frozen=True, slots=True)
class Clients:
    checkpoints: RedisCheckpointStore
    store: S3Store
    jobs: JobSink


def build_ingest(
    settings: Settings,
    clients: Clients,
    write_guards: WriteGuards,
    hashing: Executor,
    *,
    finder: FolderFinder,
    found: Found,
) -> IngestService:
    """From the inside out, in the order in which a byte meets them backwards."""
    store, checkpoints = clients.store, clients.checkpoints
    folder = settings.watch_dir.resolve()
    root = str(folder)
    prefix = names.static_prefix(settings.s3_key_template)
    polls = choose_mode(folder, settings.watch_mode) is WatchMode.POLLING
    index, writer_profiles, identity = FinishedIndex(), WriterProfiles(), Identity(hashing=hashing)
    slots = PartSlots(
        max_parts=settings.max_parts_in_flight, max_streams=settings.max_concurrent_streams
    )
    uploader = Uploader(store=store, slots=slots, hashing=hashing)
    finalizer = Finalizer(store=store, uploader=uploader, hashing=hashing)
    keys = ObjectKeys(store, settings.s3_key_template, settings.s3_key_conflict)
    describer = Describer(
        store=store,
        probe=FfprobeMediaProbe(
            Ffprobe(
                program=settings.ffprobe_path,
                timeout_s=settings.ffprobe_timeout_seconds,
                memory_bytes=settings.ffprobe_memory_bytes,
                answer_bytes=MAX_ANSWER_BYTES,
            )
        ),
        slots=slots,
        identity=identity,
        bucket=settings.s3_bucket_name,
        watch_dir=root,
    )
    bucket_search = BucketSearch(
        store=store,
        prefix=prefix,
        hashing=hashing,
        plan=PartPlan(settings.chunk_size_bytes, settings.part_sizing),
        folder=found.folder,
        host=settings.host,
    )
    claims = Claims(
        checkpoints=checkpoints,
        owner=owner_id(settings.host),
        folder=found.folder.id,
        wall_clock=CLOCKS.wall,
    )
    admission = Admission(
        root=root,
        naming=Naming(
            host=settings.host,
            folder=found.folder.id,
            part_base=settings.chunk_size_bytes,
            part_sizing=settings.part_sizing,
        ),
        keys=keys,
        index=index,
        claims=claims,
        store=store,
        recovery=Recovery(store=store, hashing=hashing),
        bucket_search=bucket_search,
        identity=identity,
        wall_clock=CLOCKS.wall,
        place=found.place,
    )
    waiting_times = WaitingTimes(
        settle=settings.settle_seconds,
        unknown_writer=settings.watch_file_min_age_seconds_for_idle,
        idle=settings.stream_timeout_seconds,
    )

    def make_processor(admitted: Admitted) -> StreamProcessor:
        return StreamProcessor(
            record=admitted.record,
            source=admitted.source,
            uploader=uploader,
            finalizer=finalizer,
            keys=keys,
            write_guards=write_guards,
            writer_profiles=writer_profiles,
            waiting_times=waiting_times,
            clocks=CLOCKS,
            trusts_ctime=not polls,
            former=admitted.former,
            holes_limit_bytes=settings.holes_limit_bytes,
        )

    completion = Completion(
        describer=describer,
        handover=Handover(
            sink=clients.jobs,
            kinds=handover_kinds(settings),
            bucket=settings.s3_bucket_name,
            watch_dir=root,
            max_attempts=settings.worker_max_attempts,
        ),
        local_file=LocalFilePolicy(settings.after_upload, write_guards.has_writer),
        index=index,
        claims=claims,
        store=clients.store,
    )
    archive = archive_below(settings.after_upload, folder)
    selection = Selection(folder, settings.watch_filter_globs, archive)
    limits = Limits(folders=settings.watch_max_folders)
    watcher = Watcher(
        folder,
        selection,
        mode=settings.watch_mode,
        patience_s=settings.startup_timeout_seconds,
        limits=limits,
    )
    router = StreamRouter(
        admission=admission,
        selection=selection,
        completion=completion,
        slots=slots,
        clocks=CLOCKS,
        make_processor=make_processor,
        max_active=_room_for_files(),
        foreign_pause_s=settings.lease_seconds / 3,
    )
    memory_lost = asyncio.Event()
    return IngestService(
        checkpoints=checkpoints,
        index=index,
        writer_profiles=writer_profiles,
        startup=Startup(
            checkpoints=checkpoints,
            bucket_search=bucket_search,
            index=index,
            claims=claims,
            admission=admission,
            uploader=uploader,
            completion=completion,
            folder=found.folder.id,
            adoption=Adoption(
                root=root, folder=found.folder, checkpoints=checkpoints, claims=claims
            ),
        ),
        router=router,
        watcher=watcher,
        scanner=FolderScanner(
            watcher, interval_s=settings.reconcile_seconds, place=found.place, limits=limits
        ),
        active_files=ActiveFiles(
            root=root,
            router=router,
            clocks=CLOCKS,
            interval_s=settings.poll_seconds,
        ),
        ownership=Ownership(
            checkpoints=checkpoints,
            records=lambda: router.records,
            on_lost=router.fence_off,
            on_memory_lost=memory_lost.set,
            is_restoring=lambda: memory_lost.is_set() or bucket_search.contents is not None,
            lease_seconds=settings.lease_seconds,
            folder=found.folder.id,
        ),
        orphans=OrphanSweeper(
            store=store,
            checkpoints=checkpoints,
            prefix=prefix,
            grace_s=settings.orphan_grace_seconds,
            folder=found.folder,
        ),
        memory_lost=memory_lost,
        finder=finder,
        found=found,
        drain_timeout_s=drain_s(settings.shutdown_timeout_seconds),
    )


def _room_for_files() -> int:
    """Every active stream holds one."""
    room = descriptors.raise_limit() - max_connections() - SPARE_FILES
    return max(10, min(MAX_ACTIVE_STREAMS, room))


async def ingest(settings: Settings, *, stop: asyncio.Event) -> None:
    """Runs the ingest side until `stop`."""
    check_after_upload(settings.after_upload, settings.watch_dir)
    metrics.streams.is_per_stream = settings.metrics_per_stream
    metrics.disk_folders.update(watch_dir=settings.watch_dir, state_dir=settings.state_dir)
    async with AsyncExitStack() as stack:
        async with cut_by(stop):
            sessions = await _open_sessions(settings, stack)
            gc.collect()
            gc.freeze()  # what was imported and built stays: the collector need not visit it again
        if not stop.is_set():
            await sessions.run(stop)


async def _open_sessions(settings: Settings, stack: AsyncExitStack) -> IngestSessions:
    checkpoints = await stack.enter_async_context(open_redis(settings))
    store = await stack.enter_async_context(open_store(settings, checkpoints))
    tell_of_outages()
    hashing = stack.enter_context(
        ThreadPoolExecutor(max_workers=os.cpu_count() or 2, thread_name_prefix="hashing")
    )
    write_guards = await stack.enter_async_context(WriteGuards())
    jobs = JobsOnDemand(settings, stack)
    ledger = await stack.enter_async_context(
        open_ledger(settings.redis_address or "", lease_seconds=settings.lease_seconds)
    )
    finder = FolderFinder(
        root=str(settings.watch_dir.resolve()),
        named=settings.watch_dir_id,
        host=settings.host,
        checkpoints=checkpoints,
    )
    clients = Clients(checkpoints, store, jobs)

    def build(found: Found) -> IngestService:
        return build_ingest(settings, clients, write_guards, hashing, finder=finder, found=found)

    sessions = IngestSessions(finder, build)
    job_api = _job_api(settings, ledger, jobs)
    find = partial(find_view, checkpoints)
    watch = Watch(store, ledger, views=sessions.views, find=find, access=access_of(settings))
    routes = [*job_api.routes(), *watch.routes(), *Media(store, find).routes()]
    server = await stack.enter_async_context(
        _http_server(settings, sessions, checkpoints, routes, job_api.measure)
    )
    if not settings.prom_port:
        log.info("page, API and metrics", host=settings.http_host, port=server.port)
    return sessions


def access_of(settings: Settings) -> Access:
    return Access(
        reached_at=settings.reached_at,
        token=settings.api_token.get_secret_value() if settings.api_token else None,
        names=settings.http_allowed_hosts,
    )


def _job_api(settings: Settings, ledger: RedisLedger, jobs: JobsOnDemand) -> JobApi:
    return JobApi(
        ledger,
        retry=jobs.retry,
        webhook=Webhook(
            secret=settings.webhook_secret.get_secret_value() if settings.webhook_secret else None,
            bucket=settings.s3_bucket_name,
            max_attempts=settings.worker_max_attempts,
            submit=jobs.submit,
        ),
    )


def _http_server(
    settings: Settings,
    sessions: IngestSessions,
    checkpoints: RedisCheckpointStore,
    routes: list[AbstractRouteDef],
    measure: Callable[[], Awaitable[None]],
) -> HttpServer:
    return HttpServer(
        settings.http_host,
        settings.prom_port,
        views=sessions.views,
        health=lambda: _health(sessions),
        actions=Actions(
            find=partial(find_view, checkpoints),
            retry=partial(retry_stream, checkpoints),
            forget=partial(forget_stream, checkpoints),
        ),
        access=access_of(settings),
        routes=routes,
        measure=measure,
    )


def _health(sessions: IngestSessions) -> Health:
    beat = sessions.last_step_at
    is_stalled = beat is not None and CLOCKS.monotonic() - beat > STALLED_S
    return Health(
        stalled=("the look at active files",) if is_stalled else (),
        waiting_for=tuple(filter(None, [*servers_away(), sessions.waiting_for])),
    )


def servers_away() -> list[str]:
    away = [
        f"{server} does not answer"
        for server, label in (("Redis", "redis"), ("S3", "s3"))
        if metrics.is_server_down(label)
    ]
    if metrics.is_server_full("s3"):
        away.append("the disk of the S3 server is full")
    return [*away, *refusals.REDIS.reasons, *refusals.S3.reasons]
