"""The HTTP port of the ingest side: what it answers, and what it says of our health."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import structlog

from cefmp4.config.settings import Settings
from cefmp4.ingest.operator import Finder, find_view, forget_stream, retry_stream
from cefmp4.ingest.sessions import IngestSessions
from cefmp4.jobs.overview import measure_queues
from cefmp4.model.view import StreamView, view_of_record
from cefmp4.ports.checkpoints import CheckpointStore
from cefmp4.ports.jobs import JobDesk
from cefmp4.ports.store import ObjectStore
from cefmp4.reachability import REDIS, S3
from cefmp4.web import page
from cefmp4.web.access import is_loopback
from cefmp4.web.api import JobApi, RecordingApi, StreamApi
from cefmp4.web.feed import Feed
from cefmp4.web.job_feed import JobFeed, JobFigures
from cefmp4.web.listener import listening
from cefmp4.web.media import Media
from cefmp4.web.probes import Health, Probes
from cefmp4.web.watch import Watch
from cefmp4.web.webhook import Webhook, taking_webhooks

log = structlog.get_logger()

STALLED_S = 30.0  # a loop that has not turned for so long stands still


@asynccontextmanager
async def serving(
    settings: Settings,
    sessions: IngestSessions,
    *,
    checkpoints: CheckpointStore,
    store: ObjectStore,
    desk: JobDesk,
) -> AsyncIterator[None]:
    views, health = sessions.views, partial(_health, sessions)

    async def find(stream_id: str) -> StreamView | None:
        live = next((view for view in views() if view.id == stream_id), None)
        return live or await find_view(checkpoints, stream_id)

    finder = Finder(checkpoints, settings.watch_dir, settings.watch_dir_id)

    async def history(relpath: str, limit: int) -> list[StreamView]:
        live = {view.id: view for view in views()}
        found = await finder.history(relpath, limit)
        return [live.get(stream.id) or view_of_record(stream) for stream in found]

    streams = StreamApi(
        views,
        health,
        find=find,
        retry=partial(retry_stream, checkpoints),
        forget=partial(forget_stream, checkpoints),
        jobs=JobFigures(desk),
    )
    webhook = Webhook(settings, desk)
    routes = [
        *page.routes(),
        *Probes(health, partial(measure_queues, desk)).routes(),
        *streams.routes(),
        *RecordingApi(settings.s3_bucket_name, views, history, desk).routes(),
        *Feed(views, JobFeed(desk)).routes(),
        *JobApi(desk).routes(),
        *webhook.routes(),
        *Watch(store, desk, views=views, find=find, settings=settings).routes(),
        *Media(store, find).routes(),
    ]
    async with (
        listening(settings, settings.prom_port, routes) as port,
        taking_webhooks(settings, webhook),
    ):
        if settings.token is None and not is_loopback(settings.reached_at):
            log.warning("nobody can use the page: set API_TOKEN", reached_at=settings.reached_at)
        if not settings.prom_port:
            log.info("page, API and metrics", host=settings.http_host, port=port)
        yield


def _health(sessions: IngestSessions) -> Health:
    beat = sessions.last_step_at
    is_stalled = beat is not None and time.monotonic() - beat > STALLED_S
    return Health(
        stalled=("the look at active files",) if is_stalled else (),
        waiting_for=tuple(filter(None, [*REDIS.troubles, *S3.troubles, sessions.waiting_for])),
    )
