"""Brings up the servers that `cefmp4 up` lacks, keeps them up, and takes them down with it."""

import asyncio
import os
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from cefmp4.embedded import postgres_server, swift_server, temporal_server, valkey_server
from cefmp4.embedded.bucket import make_bucket
from cefmp4.embedded.process import ServerProcess
from cefmp4.embedded.sockets import hold_on_loopback, port_of
from cefmp4.embedded.state import (
    Connection,
    check_has_room,
    credentials_in,
    database_url,
    listen_for,
    own,
    published,
    redis_url,
)
from cefmp4.errors import CefError, ServerUnreachableError, first_error

log = structlog.get_logger()

MAX_RESTARTS = 5
RESTART_WINDOW_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class EmbeddedServers:
    """Run `watch()` beside the work."""

    servers: list[ServerProcess]
    connection: Connection
    startup_timeout_s: float

    async def watch(self) -> None:
        """Restarts a server that dies, where it was. Never returns; raises CefError when one dies
        too often."""
        with first_error():
            async with asyncio.TaskGroup() as group:
                for server in self.servers:
                    group.create_task(self._keep_running(server), name=f"watch {server.name}")
                await asyncio.Event().wait()

    async def _keep_running(self, server: ServerProcess) -> None:
        starts: deque[float] = deque(maxlen=MAX_RESTARTS)
        while True:
            code = await server.exited()
            now = time.monotonic()
            log.error("embedded server died", server=server.name, code=code, log=str(server.log))
            if len(starts) == MAX_RESTARTS and now - starts[0] < RESTART_WINDOW_SECONDS:
                raise CefError(
                    f"the embedded {server.name} died {MAX_RESTARTS + 1} times in a minute",
                    hint=f"see {server.log}",
                )
            starts.append(now)
            server.start()
            try:
                await server.ready(self.startup_timeout_s)
            except ServerUnreachableError:
                if server.is_running:  # silent: the next turn finds it dead
                    server.kill()
            else:
                log.warning("embedded server restarted", server=server.name)


@asynccontextmanager
async def embedded_servers(
    state_dir: Path,
    *,
    want_redis: bool,
    want_s3: bool,
    want_temporal: bool = False,
    want_postgres: bool = False,
    temporal_page: bool = False,
    bucket: str,
    region: str = "us-east-1",
    startup_timeout_s: float = 30.0,
) -> AsyncIterator[EmbeddedServers]:
    """Enter it from the main thread."""
    folder = state_dir.absolute()  # noqa: ASYNC240  # looks at no file
    for check_installed, is_wanted in (
        (valkey_server.check_installed, want_redis),
        (swift_server.check_installed, want_s3),
        (temporal_server.check_installed, want_temporal),
        (postgres_server.check_installed, want_postgres),
    ):
        if is_wanted:
            check_installed()
    async with AsyncExitStack() as stack:
        lock = await stack.enter_async_context(own(folder))
        check_has_room(folder)
        keys = credentials_in(folder)
        connection = Connection(s3_region_name=region, bucket=bucket, pid=os.getpid())
        servers: list[ServerProcess] = []
        if want_s3:
            swift_server.check_folder_fits(folder)
            # Its port stays taken until the exit, whatever becomes of the server.
            listener = stack.enter_context(listen_for(folder, "s3"))
            connection = replace(
                connection,
                s3_endpoint_url=f"http://127.0.0.1:{port_of(listener)}",
                s3_access_key_id=keys.s3_access_key_id,
                s3_secret_access_key=keys.s3_secret_access_key,
            )
            servers.append(
                swift_server.swift_process(folder, listener, region=region, keep_open=[lock])
            )
        if want_redis:
            connection = replace(connection, redis_url=redis_url(folder, keys.redis_password))
            servers.append(
                valkey_server.valkey_process(folder, keys.redis_password, keep_open=[lock])
            )
        if want_temporal:
            port = _held_port(stack, folder, "temporal")
            page_port = _held_port(stack, folder, "temporal_page") if temporal_page else None
            connection = replace(
                connection,
                temporal_address=f"127.0.0.1:{port}",
                temporal_codec_key=keys.temporal_codec_key,
                temporal_page=f"http://127.0.0.1:{page_port}" if page_port else None,
            )
            servers.append(
                temporal_server.temporal_process(
                    folder, port, page_port=page_port, keep_open=[lock]
                )
            )
        if want_postgres:
            servers.append(postgres_server.postgres_process(folder))
            connection = replace(connection, database_url=database_url(folder))
        stack.push_async_callback(_stop, servers)
        await _start(servers, startup_timeout_s)
        if want_temporal:
            await temporal_server.keep_ended_jobs(folder, port)
        if connection.s3_endpoint_url:
            await make_bucket(
                connection.s3_endpoint_url,
                bucket,
                access_key=keys.s3_access_key_id,
                secret_key=keys.s3_secret_access_key,
                region=region,
            )
        stack.enter_context(published(folder, connection))
        yield EmbeddedServers(servers, connection, startup_timeout_s)


def _held_port(stack: AsyncExitStack, folder: Path, server: str) -> int:
    return port_of(stack.enter_context(listen_for(folder, server, hold_on_loopback)))


async def _start(servers: list[ServerProcess], timeout_s: float) -> None:
    for server in servers:
        server.start()
    with first_error():
        async with asyncio.TaskGroup() as group:
            for server in servers:
                group.create_task(server.ready(timeout_s), name=server.name)


async def _stop(servers: list[ServerProcess]) -> None:
    await asyncio.gather(*(server.stop() for server in servers))
