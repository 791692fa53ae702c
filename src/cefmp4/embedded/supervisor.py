"""Brings up the servers that `cefmp4 up` lacks, keeps them up, and takes them down with it."""

import asyncio
import os
import time
from collections import deque
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from cefmp4.embedded.bucket import make_bucket
from cefmp4.embedded.installed import (
    check_folder_fits_s3,
    check_folder_has_room,
    check_servers_available,
)
from cefmp4.embedded.process import ServerProcess
from cefmp4.embedded.servers import swift_process, valkey_process
from cefmp4.embedded.sockets import port_of
from cefmp4.embedded.state import (
    Connection,
    Credentials,
    StateFolder,
    load_connection,
    redis_url,
)
from cefmp4.errors import CefError, ServerUnreachableError, first_error
from cefmp4.model.part import MIN_PART_BYTES

__all__ = ["Connection", "EmbeddedServers", "load_connection"]

log = structlog.get_logger()

MAX_RESTARTS = 5
RESTART_WINDOW_SECONDS = 60.0


class EmbeddedServers:
    """`async with` it from the main thread, and run `watch()` beside the work."""

    def __init__(
        self,
        state_dir: Path,
        *,
        want_redis: bool,
        want_s3: bool,
        bucket: str,
        region: str = "us-east-1",
        min_part_bytes: int = MIN_PART_BYTES,
        startup_timeout_s: float = 30.0,
    ) -> None:
        self._state = StateFolder(state_dir.absolute())
        self._want_redis = want_redis
        self._want_s3 = want_s3
        self._bucket = bucket
        self._region = region
        self._min_part_bytes = min_part_bytes
        self._startup_timeout_s = startup_timeout_s
        self._servers: list[ServerProcess] = []
        self._connection: Connection | None = None
        self._opened = AsyncExitStack()

    def __repr__(self) -> str:
        return f"<EmbeddedServers {self._state.path} {self._servers}>"

    @property
    def connection(self) -> Connection:
        if self._connection is None:
            raise RuntimeError("the embedded servers are not started")
        return self._connection

    @property
    def servers(self) -> tuple[ServerProcess, ...]:
        return tuple(self._servers)

    async def __aenter__(self) -> Self:
        check_servers_available(want_redis=self._want_redis, want_s3=self._want_s3)
        async with AsyncExitStack() as opening:
            await self._state.open()
            opening.callback(self._state.close)
            check_folder_has_room(self._state.path)
            if self._want_s3:
                check_folder_fits_s3(self._state.path)
            credentials = self._state.credentials()
            s3_url = self._add_s3(opening) if self._want_s3 else None
            if self._want_redis:
                self._add_redis(credentials)
            opening.push_async_callback(self._stop_servers)
            await self._start_servers()
            self._connection = await self._connect(credentials, s3_url)
            opening.callback(self._state.unpublish)
            self._state.publish(self._connection)
            self._opened = opening.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._opened.aclose()

    async def watch(self) -> None:
        """Restarts a server that dies, where it was. Never returns; raises CefError when one dies
        too often."""
        with first_error():
            async with asyncio.TaskGroup() as group:
                for server in self._servers:
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
                await server.ready(self._startup_timeout_s)
            except ServerUnreachableError:
                if server.is_running:  # silent: the next turn finds it dead
                    server.kill()
            else:
                log.warning("embedded server restarted", server=server.name)

    def _add_redis(self, credentials: Credentials) -> None:
        self._servers.append(
            valkey_process(self._state.path, credentials, keep_open=[self._state.lock])
        )

    def _add_s3(self, opening: AsyncExitStack) -> str:
        """Its port stays taken until the exit, whatever becomes of the server."""
        listener = opening.enter_context(self._state.listen("s3"))
        self._servers.append(
            swift_process(
                self._state.path,
                listener,
                region=self._region,
                min_part_bytes=self._min_part_bytes,
                keep_open=[self._state.lock],
            )
        )
        return f"http://127.0.0.1:{port_of(listener)}"

    async def _start_servers(self) -> None:
        for server in self._servers:
            server.start()
        with first_error():
            async with asyncio.TaskGroup() as group:
                for server in self._servers:
                    group.create_task(server.ready(self._startup_timeout_s), name=server.name)

    async def _connect(self, credentials: Credentials, s3_url: str | None) -> Connection:
        if s3_url:
            await make_bucket(
                s3_url,
                self._bucket,
                access_key=credentials.s3_access_key_id,
                secret_key=credentials.s3_secret_access_key,
                region=self._region,
            )
        password = credentials.redis_password
        return Connection(
            redis_url=redis_url(self._state.path, password) if self._want_redis else None,
            s3_endpoint_url=s3_url,
            s3_access_key_id=credentials.s3_access_key_id if s3_url else None,
            s3_secret_access_key=credentials.s3_secret_access_key if s3_url else None,
            s3_region_name=self._region,
            bucket=self._bucket,
            pid=os.getpid(),
        )

    async def _stop_servers(self) -> None:
        await asyncio.gather(*(server.stop() for server in self._servers))
