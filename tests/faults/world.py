"""One small world per run: servers behind proxies, a watched folder, writers, ingest services."""

import asyncio
import hashlib
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tests.faults.instance import Instance
from tests.faults.judge import SUFFIX, Judge, Verdict, Wanted, examine_log
from tests.faults.redis_proxy import RedisProxy
from tests.faults.s3_proxy import S3Proxy
from tests.support.servers import SwiftServer, ValkeyServer

MIB = 1024 * 1024
POLL_S = 0.15
INTERIM = frozenset({"reopen_append", "replace", "truncate_rewrite"})


@dataclass(slots=True)
class World:
    """A scenario acts on it; `check` is how each of them ends."""

    name: str
    seed: int
    folder: Path
    s3_server: SwiftServer
    valkey: ValkeyServer
    s3: S3Proxy
    redis: RedisProxy
    judge: Judge
    client: Any
    bucket: str
    small_files: int
    random: Random = field(init=False)
    instances: list[Instance] = field(default_factory=list)
    wanted: dict[str, Wanted] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)  # what a scenario found wrong itself
    most_part_bytes: int = 0  # more must not be sent; 0 is no limit
    apart: str = ""  # where somebody writes of whom it is not known what he finishes
    secrets: dict[str, str] = field(default_factory=dict)  # what must not be stored, by SHA-256
    mount: Path | None = None  # where the services see what is written into `watched`
    closing: AsyncExitStack = field(default_factory=AsyncExitStack)

    def __post_init__(self) -> None:
        self.random = Random(self.seed)

    @property
    def watched(self) -> Path:
        return self.folder / "watched"

    def environment(self, **changes: str) -> dict[str, str]:
        redis_url = self.valkey.url.replace(f":{self.valkey.port}/", f":{self.redis.port}/")
        return {
            **self.s3_server.environment,
            "S3_ENDPOINT_URL": f"http://127.0.0.1:{self.s3.port}",
            "S3_BUCKET_NAME": self.bucket,
            "REDIS_URL": redis_url,
            "WATCH_DIR": str(self.mount or self.watched),
            "HANDOVER_JOBS": "none",
            "PYTHONPATH": os.getcwd(),
            "APP_ENV": "production",
            "PROM_PORT": str(_quiet_port()),
            "CHUNK_SIZE_BYTES": str(5 * MIB),
            "SETTLE_SECONDS": "0.5",
            "STREAM_TIMEOUT_SECONDS": "3",
            "WATCH_FILE_MIN_AGE_SECONDS_FOR_IDLE": "1",
            "RECONCILE_SECONDS": "2",
            "POLL_SECONDS": "0.2",
            "LEASE_SECONDS": "2",
            "SHUTDOWN_TIMEOUT_SECONDS": "5",
            **self.settings,
            **changes,
        }

    async def ingest(self, *, command: Sequence[str] = ("cefmp4", "ingest")) -> Instance:
        """Starts one more service and waits until it is ready."""
        instance = self.new_instance(command=command)
        await instance.start()
        return instance

    def new_instance(
        self, *, command: Sequence[str] = ("cefmp4", "ingest"), log: Path | None = None
    ) -> Instance:
        name = f"ingest-{len(self.instances) + 1}"
        environment = self.environment()
        instance = Instance(name, environment, self.folder, command=command, log=log)
        self.instances.append(instance)
        return instance

    @property
    def kills(self) -> int:
        return sum(instance.kills for instance in self.instances)

    async def enter(self, thing: AbstractAsyncContextManager[None]) -> None:
        """It lasts until the services are gone."""
        await self.closing.enter_async_context(thing)

    # What a scenario waits for.

    async def stored(self, count: int, timeout_s: float = 40) -> None:
        """Waits until so many objects have their metadata."""
        async with asyncio.timeout(timeout_s):
            while sum(key.endswith(SUFFIX) for key in await self.judge.keys()) < count:  # noqa: ASYNC110
                await asyncio.sleep(POLL_S)

    async def logged(self, words: str, timeout_s: float = 20) -> None:
        """Waits until a service says so: a fault that did not take hold proves nothing."""
        async with asyncio.timeout(timeout_s):
            while not any([words in await one.said() for one in self.instances]):  # noqa: ASYNC110
                await asyncio.sleep(POLL_S)

    # Writers.

    async def write(
        self,
        relpath: str,
        size: int,
        *,
        behaviour: str = "append",
        rate: int = 0,
        interim: bool = False,
    ) -> None:
        """Lets a recorder write a file and waits for its end."""
        path = self.watched / relpath
        await asyncio.to_thread(path.parent.mkdir, parents=True, exist_ok=True)
        seed = self.random.getrandbits(40)
        writer = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.faults.writers", behaviour, os.fsencode(path)),
            *(str(size), str(seed), str(rate)),
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            told, _ = await writer.communicate()
        finally:
            if writer.returncode is None:
                writer.kill()
                await writer.wait()
        if writer.returncode:
            raise AssertionError(f"the writer of {relpath!r} ended with {writer.returncode}")
        last = json.loads(told.splitlines()[-1])
        before = relpath in self.wanted
        self.wanted[relpath] = Wanted(
            relpath, **last, has_interim=interim or before or behaviour in INTERIM
        )

    async def put(self, relpath: str, data: bytes, *, interim: bool = False) -> None:
        """A small file, written at once."""
        path = self.watched / relpath

        def write() -> None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

        await asyncio.to_thread(write)
        has_interim = interim or relpath in self.wanted
        digest = hashlib.sha256(data).hexdigest()
        self.wanted[relpath] = Wanted(relpath, digest, len(data), has_interim)

    async def hide(self, path: Path, data: bytes) -> None:
        """A file outside the folder, which nobody may ever find in the bucket."""
        await asyncio.to_thread(path.parent.mkdir, parents=True, exist_ok=True)
        await asyncio.to_thread(path.write_bytes, data)
        self.secrets[hashlib.sha256(data).hexdigest()] = path.name

    async def adopt(self, relpath: str, *, interim: bool = True) -> None:
        """What is on the disk now is what must be stored."""

        def read() -> tuple[str, int]:
            with (self.watched / relpath).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest(), file.tell()

        digest, size = await asyncio.to_thread(read)
        self.wanted[relpath] = Wanted(relpath, digest, size, has_interim=interim)

    async def write_mixed(self, count: int = 3, *, rate: int = 12 * MIB) -> None:
        """A few recorders of different kinds side by side."""
        kinds = ["append", "patch_head", "patch_far", "preallocate", "rename_at_end"]
        async with asyncio.TaskGroup() as writers:
            for number in range(count):
                size = self.random.randint(6 * MIB, 24 * MIB)
                kind = self.random.choice(kinds)
                writers.create_task(
                    self.write(f"cam{number}/rec.mp4", size, behaviour=kind, rate=rate)
                )

    # The end.

    async def check(self, *, patience_s: float = 40) -> Verdict:
        """Lets things settle, stops the services and says what is wrong."""
        deadline = asyncio.get_running_loop().time() + patience_s
        while True:
            is_late = asyncio.get_running_loop().time() > deadline
            verdict = await self._glance()
            if verdict.is_clean or is_late:
                whole = await self.judge.look(self.wanted.values(), apart=self.apart)
                verdict.losses, verdict.duplicates = whole.losses, whole.duplicates
                if verdict.is_clean or is_late:
                    break
            await asyncio.sleep(POLL_S)
        for instance in self.instances:
            if instance.is_running and (code := await instance.stop()) != 0:
                verdict.stuck.append(f"{instance.name} ended with {code}")
            if instance.log.is_file():
                verdict.leaks += await examine_log(instance.log)
        verdict.losses += self.faults
        for digest in self.judge.digests & self.secrets.keys():
            verdict.losses.append(f"{self.secrets[digest]} from outside the folder was stored")
        if 0 < self.most_part_bytes < self.s3.part_bytes:
            verdict.duplicates.append(f"{self.s3.part_bytes} bytes of parts were sent")
        return verdict

    async def _glance(self) -> Verdict:
        """Whether all has come to rest."""
        verdict = await self.judge.glance()
        running = [instance for instance in self.instances if instance.is_running]
        if not running:
            verdict.stuck.append("no service is running")
        for instance in running:
            values = await instance.metrics()
            if not values:
                verdict.stuck.append(f"{instance.name} does not answer")
            for gauge in ("active_streams_gauge", "cefmp4_open_multipart_uploads"):
                if values.get(gauge):
                    verdict.leaks.append(f"{instance.name}: {gauge} is {values[gauge]:g}")
            verdict.leaks += instance.leaks(self.mount or self.watched)
        return verdict

    async def close(self) -> None:
        for instance in self.instances:
            if instance.is_running:
                instance.resume()
                await instance.end()
        await self.closing.aclose()
        await self.s3.stop()
        await self.redis.stop()
        await self.valkey.stop()


_PORTS = Random()  # not seeded: two runs side by side must not meet


def _quiet_port() -> int:
    """One that the kernel gives to no outgoing connection before the service binds it."""
    while True:
        port = _PORTS.randint(10_240, 32_000)
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


@asynccontextmanager
async def open_world(
    name: str, seed: int, folder: Path, s3_server: SwiftServer, client: Any, *, small_files: int
) -> AsyncIterator[World]:
    """`client` is an S3 client that asks the server itself."""
    await asyncio.to_thread((folder / "watched").mkdir, parents=True)
    valkey = ValkeyServer(folder / "valkey")
    await valkey.start()
    s3, redis = S3Proxy(s3_server.port), RedisProxy(valkey.port)
    await s3.start()
    await redis.start()
    bucket = await s3_server.new_bucket()
    judge = Judge(client, bucket, valkey.url)
    world = World(
        name, seed, folder, s3_server, valkey, s3, redis, judge, client, bucket, small_files
    )
    try:
        yield world
    finally:
        await world.close()
