"""`cefmp4 up`: everything on one machine, with embedded servers where none are configured."""

import argparse
import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path, PurePath

import structlog

from cefmp4.app.ingest import ingest
from cefmp4.app.lifetime import stop_of_signals
from cefmp4.app.worker import slots_of, stop_s, work
from cefmp4.config.general import AppEnv
from cefmp4.config.settings import Settings
from cefmp4.embedded.child import CREDENTIALS
from cefmp4.embedded.supervisor import embedded_servers
from cefmp4.errors import SettingsError
from cefmp4.log import printable
from cefmp4.model.job import JobKind, JobSpec
from cefmp4.tasks import cut_by

log = structlog.get_logger()
Service = Coroutine[None, None, None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Everything is a setting."""


async def run(args: argparse.Namespace, settings: Settings) -> int:
    want_redis, want_s3 = settings.redis_address is None, settings.s3_endpoint_url is None
    want_temporal = settings.has_jobs and settings.temporal_address is None
    want_postgres = settings.wants_postgres and settings.database_address is None
    _make_watch_dir(settings.watch_dir)
    stop = stop_of_signals(stop_s(settings))
    async with AsyncExitStack() as stack:
        running: dict[str, Service] = {}
        keys = temporal_page = None
        if want_redis or want_s3 or want_temporal or want_postgres:
            async with cut_by(stop):
                servers = await stack.enter_async_context(
                    embedded_servers(
                        settings.state_dir,
                        want_redis=want_redis,
                        want_s3=want_s3,
                        want_temporal=want_temporal,
                        want_postgres=want_postgres,
                        temporal_page=settings.temporal_ui,
                        bucket=settings.s3_bucket_name,
                        region=settings.s3_region_name,
                        startup_timeout_s=settings.startup_timeout_seconds,
                    )
                )
            if stop.is_set():
                return 0
            settings = servers.connection.completing(settings)
            keys = settings.state_dir.absolute() / CREDENTIALS
            running["servers"] = servers.watch()
            temporal_page = servers.connection.temporal_page
        _announce(settings, keys=keys, temporal_page=temporal_page)
        await _run_together(_services(settings, stop) | running, stop)
    return 0


def _make_watch_dir(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"WATCH_DIR={printable(str(folder))}: {error.strerror}") from None


def _services(settings: Settings, stop: asyncio.Event) -> dict[str, Service]:
    services: dict[str, Service] = {"ingest": ingest(settings, stop=stop)}
    if settings.has_jobs:
        services["worker"] = work(
            settings,
            kinds=(JobKind.HLS,),
            slots=slots_of(settings),
            stop=stop,
            asks_sources=bool(settings.polled_sources),
            on_complete=partial(_tell_where, settings),
        )
    return services


async def _run_together(services: dict[str, Service], stop: asyncio.Event) -> None:
    """The end of any of them is the end of all; what ended it with an error is raised."""
    running = [asyncio.create_task(service, name=name) for name, service in services.items()]
    try:
        await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        await asyncio.wait([task for task in running if task.get_name() != "servers"])
    finally:
        for task in running:
            task.cancel()
        ended = await asyncio.gather(*running, return_exceptions=True)
    for error in ended:
        if isinstance(error, Exception):
            raise error


def _tell_where(settings: Settings, spec: JobSpec) -> None:
    """Of each recording that can be watched from now on."""
    if spec.kind is not JobKind.HLS:
        return
    if url := settings.watch_url(spec.subject):
        name = PurePath(spec.input.path or spec.input.key).name
        if settings.app_env is AppEnv.PRODUCTION:
            log.info("a recording can be watched", url=url, file_path=name)
        else:
            print(f"  watch      {url}  {printable(name)}", flush=True)


def _announce(settings: Settings, *, keys: Path | None, temporal_page: str | None) -> None:
    """For people who start it in a terminal: where things go, and where to look. `keys` is the file
    that holds those of the embedded servers."""
    if settings.app_env is AppEnv.PRODUCTION:
        log.info(
            "everything on this machine",
            watching=str(settings.watch_dir.resolve()),
            storing=f"s3://{settings.s3_bucket_name} at {settings.s3_endpoint_url}",
            page=settings.page_url,
            temporal_page=temporal_page,
        )
        return
    print(f"  watching   {settings.watch_dir.resolve()}")
    print(f"  storing    s3://{settings.s3_bucket_name} at {settings.s3_endpoint_url}")
    if keys:
        print(f"  keys       {keys}")
    if settings.prom_port:
        print(f"  page       {settings.page_url}")
    if temporal_page:
        print(f"  temporal   {temporal_page}")
    print(
        "  Drop a recording into the folder. Ctrl-C stops everything; start again to go on.",
        flush=True,  # also where it is no terminal: a log must not wait for the end
    )
