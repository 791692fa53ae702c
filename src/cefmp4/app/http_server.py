"""The HTTP port of the ingest side: what it answers, and what it says of our health."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import structlog

from cefmp4.app.clients import JobsOnDemand
from cefmp4.config.settings import Settings
from cefmp4.ingest.operator import find_view, forget_stream, retry_stream
from cefmp4.ingest.sessions import IngestSessions
from cefmp4.jobs.ledger import RedisLedger
from cefmp4.jobs.overview import measure_queues
from cefmp4.ports.checkpoints import CheckpointStore
from cefmp4.ports.store import ObjectStore
from cefmp4.reachability import REDIS, S3
from cefmp4.web import page
from cefmp4.web.access import Access
from cefmp4.web.feed import ViewFeed
from cefmp4.web.jobs import JobApi
from cefmp4.web.listener import listening
from cefmp4.web.media import Media
from cefmp4.web.probes import Health, Probes
from cefmp4.web.streams import StreamApi
from cefmp4.web.watch import Watch
from cefmp4.web.webhook import Webhook

log = structlog.get_logger()

STALLED_S = 30.0  # a loop that has not turned for so long stands still


def access_of(settings: Settings) -> Access:
    return Access(
        reached_at=settings.reached_at,
        token=settings.api_token.get_secret_value() if settings.api_token else None,
        names=settings.http_allowed_hosts,
    )


@asynccontextmanager
async def serving(
    settings: Settings,
    sessions: IngestSessions,
    *,
    checkpoints: CheckpointStore,
    store: ObjectStore,
    ledger: RedisLedger,
    jobs: JobsOnDemand,
) -> AsyncIterator[None]:
    views, access = sessions.views, access_of(settings)
    find, health = partial(find_view, checkpoints), partial(_health, sessions)
    feed = ViewFeed(views)
    streams = StreamApi(
        views,
        health,
        find=find,
        retry=partial(retry_stream, checkpoints),
        forget=partial(forget_stream, checkpoints),
    )
    webhook = Webhook(
        secret=settings.webhook_secret.get_secret_value() if settings.webhook_secret else None,
        bucket=settings.s3_bucket_name,
        max_attempts=settings.worker_max_attempts,
        submit=jobs.submit,
    )
    routes = [
        *page.routes(),
        *Probes(health, partial(measure_queues, ledger)).routes(),
        *streams.routes(),
        *feed.routes(),
        *JobApi(ledger, retry=jobs.retry).routes(),
        *webhook.routes(),
        *Watch(store, ledger, views=views, find=find, access=access).routes(),
        *Media(store, find).routes(),
    ]
    async with listening(
        settings.http_host, settings.prom_port, routes, access=access, on_stop=feed.stop
    ) as port:
        if not access.is_usable:
            log.warning("nobody can use the page: set API_TOKEN", reached_at=access.reached_at)
        if not settings.prom_port:
            log.info("page, API and metrics", host=settings.http_host, port=port)
        yield


def _health(sessions: IngestSessions) -> Health:
    beat = sessions.last_step_at
    is_stalled = beat is not None and time.monotonic() - beat > STALLED_S
    return Health(
        stalled=("the look at active files",) if is_stalled else (),
        waiting_for=tuple(filter(None, [*servers_away(), sessions.waiting_for])),
    )


def servers_away() -> list[str]:
    return [*REDIS.troubles, *S3.troubles]
