"""The HTTP server of the ingest side: what it shows, and what it says of our health."""

import time
from collections.abc import Awaitable, Callable
from functools import partial

from aiohttp.web import AbstractRouteDef

from cefmp4 import metrics
from cefmp4.app.clients import JobsOnDemand
from cefmp4.config.settings import Settings
from cefmp4.ingest.operator import find_view, forget_stream, retry_stream
from cefmp4.ingest.sessions import IngestSessions
from cefmp4.jobs.ledger import RedisLedger
from cefmp4.reachability import REDIS, S3
from cefmp4.storage.redis.checkpoints import RedisCheckpointStore
from cefmp4.web.access import Access
from cefmp4.web.health import Health
from cefmp4.web.jobs import JobApi
from cefmp4.web.server import Actions, HttpServer
from cefmp4.web.webhook import Webhook

STALLED_S = 30.0  # a loop that has not turned for so long stands still


def access_of(settings: Settings) -> Access:
    return Access(
        reached_at=settings.reached_at,
        token=settings.api_token.get_secret_value() if settings.api_token else None,
        names=settings.http_allowed_hosts,
    )


def job_api_of(settings: Settings, ledger: RedisLedger, jobs: JobsOnDemand) -> JobApi:
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


def http_server(
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
    is_stalled = beat is not None and time.monotonic() - beat > STALLED_S
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
    return [*away, *REDIS.refusals, *S3.refusals]
