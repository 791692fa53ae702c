"""Runs the ingest side: opens the clients, picks the adapters, builds the service around them."""

import asyncio
import gc
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack

from cefmp4 import metrics
from cefmp4.app.builder import Ports, build_ingest
from cefmp4.app.clients import open_redis, open_store
from cefmp4.app.engine import check_named, desk_of
from cefmp4.app.http_server import serving
from cefmp4.config.settings import Settings
from cefmp4.ingest.after.local_file import check_after_upload
from cefmp4.ingest.folder import FolderFinder, FoundFolder
from cefmp4.ingest.service import IngestService
from cefmp4.ingest.sessions import IngestSessions
from cefmp4.media.ffprobe import Ffprobe
from cefmp4.media.probe import MAX_ANSWER_BYTES, FfprobeMediaProbe
from cefmp4.reachability import tell_of_outages
from cefmp4.recording.clocks import Clocks
from cefmp4.recording.write_guard import WriteGuards
from cefmp4.storage.redis.owner import owner_id
from cefmp4.tasks import cut_by


async def ingest(settings: Settings, *, stop: asyncio.Event) -> None:
    """Runs the ingest side until `stop`."""
    check_after_upload(settings.after_upload, settings.watch_dir)
    if settings.handed_over or settings.webhook_url:
        check_named(settings)
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
    desk = desk_of(settings)
    finder = FolderFinder(
        root=str(settings.watch_dir.resolve()),
        named=settings.watch_dir_id,
        host=settings.host,
        checkpoints=checkpoints,
    )
    ports = Ports(
        owner=owner_id(settings.host),
        checkpoints=checkpoints,
        store=store,
        jobs=desk,
        probe=FfprobeMediaProbe(
            Ffprobe(
                program=settings.ffprobe_path,
                timeout_s=settings.ffprobe_timeout_seconds,
                memory_bytes=settings.ffprobe_memory_bytes,
                answer_bytes=MAX_ANSWER_BYTES,
            )
        ),
        clocks=Clocks(monotonic=time.monotonic, wall=time.time),
        write_guards=write_guards,
        hashing=hashing,
    )

    def build(found: FoundFolder) -> IngestService:
        return build_ingest(settings, ports, finder=finder, found=found)

    sessions = IngestSessions(finder, build)
    await stack.enter_async_context(
        serving(settings, sessions, checkpoints=checkpoints, store=store, desk=desk)
    )
    return sessions
