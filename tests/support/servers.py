"""Real servers for tests: the embedded S3 and Valkey, each in a folder of its own."""

import os
import secrets
import signal
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path

import pytest
import pytest_asyncio
from redis.asyncio import Redis
from tests.support.ports import free_port

from cefmp4.embedded.bucket import make_bucket
from cefmp4.embedded.child import CREDENTIALS
from cefmp4.embedded.process import ServerProcess
from cefmp4.embedded.sockets import listen_on_loopback
from cefmp4.embedded.state import new_credentials, write_private
from cefmp4.embedded.swift_server import swift_process
from cefmp4.embedded.valkey_server import valkey_process
from cefmp4.model.part import MIN_PART_BYTES
from cefmp4.storage.s3.connect import S3Config

START_SECONDS = 30.0
# Other people's Redis has a port, which can be behind a proxy, too.
ON_A_PORT = """
import sys
from cefmp4.embedded import valkey_server
port = sys.argv.pop(1)
valkey_server._CONF = valkey_server._CONF.replace("port 0", f"bind 127.0.0.1\\nport {port}")
valkey_server.main()
"""
# Set by `make test-servers` alone, because the tests empty that Redis.
USES_GIVEN_SERVERS = os.environ.get("TEST_GIVEN_SERVERS") == "yes"


class _Server:
    """What can be done to either of them. It keeps port, keys and data over a restart."""

    def __init__(self, process: ServerProcess) -> None:
        self.process = process

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log_text(self) -> str:
        return self.process.log.read_text(errors="replace")

    async def start(self) -> None:
        self._open()
        self.process.start()
        await self.process.ready(START_SECONDS)

    async def stop(self) -> None:
        self.resume()
        await self.process.stop()
        self._close()

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    def kill(self) -> None:
        """kill -9; returns when it is gone."""
        if self.process.is_running:
            self.process.kill()
        self._close()

    def _open(self) -> None:
        """What it needs to be reached, and must not have while it is down."""

    def _close(self) -> None: ...

    def pause(self) -> None:
        """It keeps its connections and answers nothing: a server that hangs."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        if self.process.is_running:
            os.kill(self.pid, signal.SIGCONT)


class S3Place:
    """Where an S3 server is, whoever runs it."""

    endpoint_url: str
    access_key: str
    secret_key: str
    region: str

    @property
    def environment(self) -> dict[str, str]:
        """The settings that point the product at it, without the bucket."""
        return {
            "S3_ENDPOINT_URL": self.endpoint_url,
            "S3_ACCESS_KEY_ID": self.access_key,
            "S3_SECRET_ACCESS_KEY": self.secret_key,
            "S3_REGION_NAME": self.region,
        }

    def config(self, bucket: str) -> S3Config:
        return S3Config(
            endpoint_url=self.endpoint_url,
            access_key=self.access_key,
            secret=self.secret_key,
            bucket=bucket,
            region=self.region,
        )

    async def new_bucket(self) -> str:
        bucket = f"test-{secrets.token_hex(6)}"
        await make_bucket(
            self.endpoint_url,
            bucket,
            access_key=self.access_key,
            secret_key=self.secret_key,
            region=self.region,
        )
        return bucket


class GivenS3(S3Place):
    """The server that the environment names, for `make test-servers`."""

    def __init__(self) -> None:
        self.endpoint_url = os.environ["S3_ENDPOINT_URL"]
        self.access_key = os.environ["S3_ACCESS_KEY_ID"]
        self.secret_key = os.environ["S3_SECRET_ACCESS_KEY"]
        self.region = os.environ.get("S3_REGION_NAME", "us-east-1")


class SwiftServer(_Server, S3Place):
    """An S3 server. A small `min_part_bytes` lets tests use small files."""

    def __init__(
        self, folder: Path, *, min_part_bytes: int = MIN_PART_BYTES, region: str = "us-east-1"
    ) -> None:
        self.region = region
        keys = new_credentials()
        self.access_key = keys.s3_access_key_id
        self.secret_key = keys.s3_secret_access_key
        folder.mkdir(parents=True, exist_ok=True)
        write_private(folder / CREDENTIALS, asdict(keys))
        self.port = free_port()
        listener = listen_on_loopback(self.port)
        self.endpoint_url = f"http://127.0.0.1:{self.port}"
        super().__init__(
            swift_process(folder, listener, region=region, min_part_bytes=min_part_bytes)
        )
        self._descriptor = listener.detach()
        self._close()

    def _open(self) -> None:
        with listen_on_loopback(self.port) as listener:
            os.dup2(listener.fileno(), self._descriptor)

    def _close(self) -> None:
        """Its descriptor stays, so that its number does; nobody listens there any more."""
        with open(os.devnull) as nothing:
            os.dup2(nothing.fileno(), self._descriptor)


class RedisPlace:
    """Where a Redis is, whoever runs it."""

    url: str

    async def flush(self) -> None:
        async with Redis.from_url(self.url) as client:
            await client.flushall()


class GivenRedis(RedisPlace):
    """The server that the environment names. The tests empty it."""

    def __init__(self) -> None:
        self.url = os.environ["REDIS_URL"]


class ValkeyServer(_Server, RedisPlace):
    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        keys = new_credentials()
        self.password = keys.redis_password
        folder.mkdir(parents=True, exist_ok=True)
        write_private(folder / CREDENTIALS, asdict(keys))
        self.url = f"redis://:{self.password}@127.0.0.1:{self.port}/0"
        process = valkey_process(folder, self.password)
        process._command[:2] = ["-c", ON_A_PORT, str(self.port)]
        super().__init__(process)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def s3_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[S3Place]:
    """Shared: take a `new_bucket()`, and a server of your own to hurt one."""
    if USES_GIVEN_SERVERS:
        yield GivenS3()
        return
    server = SwiftServer(tmp_path_factory.mktemp("s3"))
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def tiny_part_s3_server(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[SwiftServer]:
    """As `s3_server`, but it takes parts of any size."""
    server = SwiftServer(tmp_path_factory.mktemp("s3-tiny"), min_part_bytes=1)
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def redis_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RedisPlace]:
    """Shared: use `redis_url`, and a server of your own to hurt one."""
    if USES_GIVEN_SERVERS:
        yield GivenRedis()
        return
    server = ValkeyServer(tmp_path_factory.mktemp("redis"))
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture
async def redis_url(redis_server: RedisPlace) -> str:
    """An empty Redis."""
    await redis_server.flush()
    return redis_server.url
