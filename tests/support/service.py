"""One watched folder, one bucket and the real service between them, seen from outside."""

import asyncio
import hashlib
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from awscrt import checksums
from tests.faults.instance import Instance
from tests.support.ports import free_port
from tests.support.servers import SwiftServer, ValkeyServer
from tests.writers.recording import CACHE_VARIABLE

from cefmp4.config.ingest import DEFAULT_GLOBS
from cefmp4.model import names
from cefmp4.model.stream import Stream
from cefmp4.recording.digests import spell_crc64
from cefmp4.storage.redis.checkpoints import RedisCheckpointStore, open_checkpoints
from cefmp4.storage.s3.connect import S3Config
from cefmp4.storage.s3.store import S3Store, open_s3_store

MIB = 1024 * 1024
POLL_S = 0.05
READ_BYTES = 32 * MIB
SUFFIXES = {glob.removeprefix("*") for glob in DEFAULT_GLOBS}


@dataclass(frozen=True, slots=True)
class Held:
    """What the store has of one file, and whether that is true."""

    stream: Stream
    sha256: str
    crc64: str
    size: int
    document: dict[str, Any]

    def faults(self, path: Path) -> list[str]:
        content = path.read_bytes()
        known = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        told = {"sha256": self.document["sha256"], "size": self.document["total_size_bytes"]}
        found = []
        if {"sha256": self.sha256, "size": self.size} != known:
            found.append(f"the object is not the file: {self.size} bytes, it has {len(content)}")
        if told != known:
            found.append(f"the document says {told}, the file is {known}")
        if self.document["crc64nvme"] != self.crc64:
            found.append(f"the document says CRC {self.document['crc64nvme']}, not {self.crc64}")
        return found


class Service(Instance):
    """As an operator runs it: without Python's developer mode, whose cost would be measured too."""

    async def launch(self) -> None:
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        with await asyncio.to_thread(self.log.open, "ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", *self._command),
                env=kept | self.settings,
                cwd=self._folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )


@dataclass(frozen=True, slots=True)
class Site:
    folder: Path
    service: Service
    valkey: ValkeyServer
    checkpoints: RedisCheckpointStore
    store: S3Store

    @property
    def watched(self) -> Path:
        return self.folder / "watched"

    async def streams(self) -> dict[str, Stream]:
        """The latest stream of each path."""
        return {stream.relpath: stream for stream in await self.checkpoints.load_streams()}

    def files(self) -> set[str]:
        """What is to be stored."""
        return {
            str(path.relative_to(self.watched))
            for path in self.watched.rglob("*")
            if path.suffix in SUFFIXES and not names.is_temporary(path.name)
        }

    async def described(self, files: Collection[str], timeout_s: float) -> set[str]:
        """Waits until the latest stream of each file is of its present content; returns those for
        which it did not come to that."""
        missing = set(files)

        async def all_are() -> bool:
            streams = await self.streams()
            missing.intersection_update(
                [path for path in files if not _is_described(streams.get(path), self.watched, path)]
            )
            return not missing

        await reached(all_are, timeout_s)
        return missing

    async def held(self, relpath: str) -> Held:
        stream = (await self.streams())[relpath]
        digest, crc64, size = hashlib.sha256(), 0, 0
        stored = await self.store.head(stream.key)
        assert stored, f"there is no object {stream.key}"
        while size < stored.size:
            block = await self.store.read(stream.key, size, min(size + READ_BYTES, stored.size))
            digest.update(block)
            crc64 = checksums.crc64nvme(block, crc64)
            size += len(block)
        document = json.loads(await self.store.read(names.metadata_key(stream.key)))
        return Held(stream, digest.hexdigest(), spell_crc64(crc64), size, document)

    def errors(self) -> list[dict[str, Any]]:
        """What it logged that a human may need to act on, and whatever is no log line."""
        found = []
        for line in self.service.log.read_text(errors="replace").splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                record = {"level": "error", "event": line}
            if record["level"] in ("error", "critical") or "exception" in record:
                found.append(record)
        return found


def _is_described(stream: Stream | None, folder: Path, relpath: str) -> bool:
    if stream is None or not (stream.is_proven and stream.is_final) or stream.stamp is None:
        return False
    now = (folder / relpath).stat()
    return (stream.stamp.size, stream.stamp.mtime_ns) == (now.st_size, now.st_mtime_ns)


async def reached(condition: Callable[[], Awaitable[bool]], timeout_s: float) -> bool:
    """Whether the condition became true in time."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not await condition():
        if asyncio.get_running_loop().time() > deadline:
            return False
        await asyncio.sleep(POLL_S)
    return True


async def write(name: str, output: Path, seconds: float, speed: float, cache: Path) -> None:
    """Runs one writer to its end."""
    await asyncio.to_thread(output.parent.mkdir, parents=True, exist_ok=True)
    writer = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.writers", name, str(output), str(seconds), str(speed)),
        env={**os.environ, CACHE_VARIABLE: str(cache)},
    )
    try:
        code = await writer.wait()
    finally:
        if writer.returncode is None:
            writer.kill()
            await writer.wait()
    assert code == 0, f"the writer {name} ended with {code}"


def settings_of(
    s3: SwiftServer, valkey: ValkeyServer, bucket: str, watched: Path
) -> dict[str, str]:
    """Short waiting times, small parts; everything else as it is by default."""
    return {
        **s3.environment,
        "S3_BUCKET_NAME": bucket,
        "REDIS_URL": valkey.url,
        "WATCH_DIR": str(watched),
        "HANDOVER_JOBS": "none",
        "APP_ENV": "production",
        "PROM_PORT": str(free_port()),
        "CHUNK_SIZE_BYTES": str(5 * MIB),
        "SETTLE_SECONDS": "0.5",
        "POLL_SECONDS": "0.1",
        "STREAM_TIMEOUT_SECONDS": "4",
    }


@asynccontextmanager
async def open_site(s3: SwiftServer, folder: Path, **changes: str) -> AsyncIterator[Site]:
    """With a Redis and a bucket of its own. The service is not started, but stopped at the end."""
    valkey = ValkeyServer(folder / "valkey")
    await valkey.start()
    bucket = await s3.new_bucket()
    watched = folder / "watched"
    await asyncio.to_thread(watched.mkdir)
    service = Service("ingest", settings_of(s3, valkey, bucket, watched) | changes, folder)
    config = S3Config(
        bucket=bucket, endpoint_url=s3.endpoint_url, access_key=s3.access_key, secret=s3.secret_key
    )
    try:
        async with (
            open_checkpoints(valkey.url, lease_seconds=10) as checkpoints,
            open_s3_store(config) as store,
        ):
            yield Site(folder, service, valkey, checkpoints, store)
    finally:
        await service.kill()
        await valkey.stop()
