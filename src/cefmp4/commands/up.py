"""`cefmp4 up`: everything on one machine, with embedded servers where none are configured."""

import argparse
import asyncio

import structlog

from cefmp4.app import ingest, until_signal
from cefmp4.config import Settings
from cefmp4.embedded.supervisor import Connection, EmbeddedServers

log = structlog.get_logger()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Everything is a setting."""


async def run(args: argparse.Namespace, settings: Settings) -> int:
    want_redis, want_s3 = settings.redis_address is None, settings.s3_endpoint_url is None
    settings.watch_dir.mkdir(parents=True, exist_ok=True)
    async with until_signal() as stop:
        if not (want_redis or want_s3):
            await ingest(settings, stop=stop)
            return 0
        async with EmbeddedServers(
            settings.state_dir,
            want_redis=want_redis,
            want_s3=want_s3,
            bucket=settings.s3_bucket_name,
            region=settings.s3_region_name,
            startup_timeout_s=settings.startup_timeout_seconds,
        ) as servers:
            await _run_beside(servers, settings.with_servers(servers.connection), stop)
    return 0


async def _run_beside(servers: EmbeddedServers, settings: Settings, stop: asyncio.Event) -> None:
    """The service and the watch over its servers: the end of either is the end of both."""
    watching = asyncio.create_task(servers.watch(), name="watch embedded servers")
    working = asyncio.create_task(ingest(settings, stop=stop), name="ingest")
    _announce(servers.connection, settings)
    try:
        await asyncio.wait({watching, working}, return_when=asyncio.FIRST_COMPLETED)
        if watching.done():
            stop.set()
        await working
    finally:
        watching.cancel()
        working.cancel()
        ended = await asyncio.gather(watching, working, return_exceptions=True)
    for error in ended:
        if isinstance(error, Exception):
            raise error


def _announce(connection: Connection, settings: Settings) -> None:
    """For people who start it in a terminal: where things go, and where to look."""
    print(f"  watching   {settings.watch_dir.resolve()}")
    print(f"  storing    s3://{settings.s3_bucket_name} at {settings.s3_endpoint_url}")
    print(f"  page       http://{settings.http_host}:{settings.prom_port}/")
    print(
        "  Drop a recording into the folder. Ctrl-C stops everything; start again to go on.",
        flush=True,  # also where it is no terminal: a log must not wait for the end
    )
