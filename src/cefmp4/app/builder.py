"""Builds the ingest side around ports: servers stand behind them, or what is in memory."""

from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

from cefmp4 import descriptors
from cefmp4.config.ingest import WatchMode
from cefmp4.config.settings import Settings
from cefmp4.ingest.active_files import ActiveFiles
from cefmp4.ingest.admission import Admission
from cefmp4.ingest.after.completion import Completion
from cefmp4.ingest.after.describer import Describer
from cefmp4.ingest.after.handover import Handover
from cefmp4.ingest.after.local_file import LocalFilePolicy, archive_below
from cefmp4.ingest.claims import Claims
from cefmp4.ingest.finished_index import FinishedIndex
from cefmp4.ingest.folder import FolderFinder, FoundFolder
from cefmp4.ingest.object_keys import ObjectKeys
from cefmp4.ingest.part_slots import PartSlots
from cefmp4.ingest.processor import StreamProcessor, StreamTools
from cefmp4.ingest.recover.bucket_search import BucketSearch
from cefmp4.ingest.recover.orphans import OrphanSweeper
from cefmp4.ingest.recover.recovery import Recovery
from cefmp4.ingest.recover.startup import Startup
from cefmp4.ingest.router import StreamRouter
from cefmp4.ingest.rules import WaitingTimes
from cefmp4.ingest.service import IngestService
from cefmp4.ingest.uploader import Uploader
from cefmp4.ingest.writer_profile import WriterProfiles
from cefmp4.model import names
from cefmp4.model.part import PartPlan
from cefmp4.ports.checkpoints import CheckpointStore
from cefmp4.ports.jobs import JobSink
from cefmp4.ports.media import MediaProbe
from cefmp4.ports.store import ObjectStore
from cefmp4.recording.clocks import Clocks
from cefmp4.recording.identity import Identity
from cefmp4.recording.write_guard import WriteGuards
from cefmp4.tasks import drain_s
from cefmp4.watch.folder_scanner import FolderScanner
from cefmp4.watch.selection import Selection
from cefmp4.watch.watcher import Watcher, choose_mode
from cefmp4.web.listener import max_connections

MAX_ACTIVE_STREAMS = 500  # each holds its file open
SPARE_FILES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """What the ingest side reaches the rest of the world through. `owner`: who holds its leases."""

    owner: str
    checkpoints: CheckpointStore
    store: ObjectStore
    jobs: JobSink
    probe: MediaProbe
    clocks: Clocks
    write_guards: WriteGuards
    hashing: Executor


def build_ingest(
    settings: Settings, ports: Ports, *, finder: FolderFinder, found: FoundFolder
) -> IngestService:
    folder = settings.watch_dir.resolve()
    mode = choose_mode(folder, settings.watch_mode)
    writer_profiles = WriterProfiles()
    router, startup = _streams(settings, ports, found, mode, writer_profiles)
    watcher = Watcher(
        folder,
        router.selection,
        mode=mode,
        most_folders=settings.watch_max_folders,
    )
    return IngestService(
        checkpoints=ports.checkpoints,
        index=startup.index,
        writer_profiles=writer_profiles,
        startup=startup,
        router=router,
        watcher=watcher,
        scanner=FolderScanner(
            watcher,
            interval_s=settings.reconcile_seconds,
            place=found.place,
            mounts=found.mounts,
        ),
        active_files=ActiveFiles(
            root=str(folder),
            router=router,
            clocks=ports.clocks,
            interval_s=settings.poll_seconds,
        ),
        handover=startup.completion.handover,
        claims=startup.claims,
        orphans=OrphanSweeper(
            store=ports.store,
            checkpoints=ports.checkpoints,
            prefix=names.static_prefix(settings.s3_key_template),
            grace_s=settings.orphan_grace_seconds,
            folder=found.folder,
        ),
        finder=finder,
        found=found,
        drain_timeout_s=drain_s(settings.shutdown_timeout_seconds),
        lease_seconds=settings.lease_seconds,
    )


def _streams(
    settings: Settings,
    ports: Ports,
    found: FoundFolder,
    mode: WatchMode,
    writer_profiles: WriterProfiles,
) -> tuple[StreamRouter, Startup]:
    """What deals with streams when the loops of the service tell it to; from the inside out, in the
    order in which a byte meets them backwards."""
    store, checkpoints, hashing = ports.store, ports.checkpoints, ports.hashing
    folder = settings.watch_dir.resolve()
    root = str(folder)
    index, identity = FinishedIndex(), Identity(hashing=hashing)
    slots = PartSlots(
        max_parts=settings.max_parts_in_flight, max_streams=settings.max_concurrent_streams
    )
    uploader = Uploader(store=store, slots=slots, hashing=hashing)
    keys = ObjectKeys(store, settings.s3_key_template, settings.s3_key_conflict)
    plan = PartPlan(settings.chunk_size_bytes, settings.part_sizing)
    bucket_search = BucketSearch(
        store=store,
        prefix=names.static_prefix(settings.s3_key_template),
        hashing=hashing,
        plan=plan,
        folder=found.folder,
        host=settings.host,
    )
    claims = Claims(
        checkpoints=checkpoints,
        owner=ports.owner,
        folder=found.folder.id,
        wall_clock=ports.clocks.wall,
    )
    recovery = Recovery(store=store, hashing=hashing, plan=plan)
    admission = Admission(
        root=root,
        host=settings.host,
        plan=plan,
        keys=keys,
        index=index,
        claims=claims,
        store=store,
        recovery=recovery,
        bucket_search=bucket_search,
        identity=identity,
        place=found.place,
    )
    completion = Completion(
        describer=Describer(
            store=store,
            probe=ports.probe,
            slots=slots,
            identity=identity,
            bucket=settings.s3_bucket_name,
            watch_dir=root,
        ),
        handover=Handover(
            sink=ports.jobs,
            claims=claims,
            index=index,
            kinds=settings.handed_over,
            calls_back=settings.webhook_url is not None,
            bucket=settings.s3_bucket_name,
            watch_dir=root,
            max_attempts=settings.worker_max_attempts,
        ),
        local_file=LocalFilePolicy(settings.after_upload, ports.write_guards.has_writer),
        index=index,
        claims=claims,
        store=store,
    )
    tools = _tools(settings, ports, mode, uploader, keys, writer_profiles)
    router = StreamRouter(
        admission=admission,
        selection=Selection(
            settings.watch_filter_globs, archive_below(settings.after_upload, folder)
        ),
        completion=completion,
        slots=slots,
        clocks=ports.clocks,
        make_processor=partial(StreamProcessor, tools=tools),
        max_active=_room_for_files(ports=1 if settings.webhook_port is None else 2),
        foreign_pause_s=settings.lease_seconds / 3,
    )
    startup = Startup(
        root=root,
        folder=found.folder,
        index=index,
        claims=claims,
        bucket_search=bucket_search,
        identity=identity,
        recovery=recovery,
        uploader=uploader,
        completion=completion,
    )
    return router, startup


def _tools(
    settings: Settings,
    ports: Ports,
    mode: WatchMode,
    uploader: Uploader,
    keys: ObjectKeys,
    writer_profiles: WriterProfiles,
) -> StreamTools:
    return StreamTools(
        uploader=uploader,
        keys=keys,
        write_guards=ports.write_guards,
        writer_profiles=writer_profiles,
        times=WaitingTimes(
            settle=settings.settle_seconds,
            unknown_writer=settings.watch_file_min_age_seconds_for_idle,
            idle=settings.stream_timeout_seconds,
        ),
        clocks=ports.clocks,
        trusts_ctime=mode is not WatchMode.POLLING,
        holes_limit_bytes=settings.holes_limit_bytes,
    )


def _room_for_files(*, ports: int) -> int:
    """Every active stream holds one."""
    room = descriptors.raise_limit() - ports * max_connections() - SPARE_FILES
    return max(10, min(MAX_ACTIVE_STREAMS, room))
