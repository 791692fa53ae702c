"""A recorder, a service and a disk under the watched folder that comes and goes."""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.faults.disks import Disk, disk
from tests.faults.registry import CannotRunError
from tests.faults.s3_proxy import S3Proxy
from tests.support.servers import SwiftServer
from tests.support.service import MIB, Site, open_site, reached

from cefmp4.model.stream import Stream, StreamState

PATIENCE_S = 30.0
PART = 5 * MIB
FIRST = 6 * PART + MIB  # what a recorder has written at first
SIZE = 8 * PART + 1234


@dataclass(frozen=True, slots=True)
class Ground:
    """A site whose watched folder is a disk, behind an S3 that counts what is sent."""

    site: Site
    disk: Disk
    s3: S3Proxy
    home: Path

    async def stream(self, relpath: str) -> Stream:
        return (await self.site.streams())[relpath]

    async def waits(self) -> bool:
        return "waiting for the watched folder" in (await self.ready_text())

    async def ready_text(self) -> str:
        status, text = await self.site.service._get("/readyz")
        return f"{status} {text}"


@asynccontextmanager
async def on_a_disk(s3_server: SwiftServer, folder: Path, **changes: str) -> AsyncIterator[Ground]:
    async with AsyncExitStack() as stack:
        s3 = S3Proxy(s3_server.port)
        await s3.start()
        stack.push_async_callback(s3.stop)
        try:
            watched = await stack.enter_async_context(disk(folder / "disk" / "watched"))
        except CannotRunError as error:
            pytest.skip(f"2026-11: {error}")
        address = f"http://127.0.0.1:{s3.port}"
        home = folder / "home"
        home.mkdir()
        site = await stack.enter_async_context(
            open_site(
                s3_server,
                home,
                WATCH_DIR=str(watched.point),
                S3_ENDPOINT_URL=address,
                RECONCILE_SECONDS="1",
                LEASE_SECONDS="2",
                STREAM_TIMEOUT_SECONDS="60",
                **changes,
            )
        )
        yield Ground(site, watched, s3, home)


class Recorder:
    """Has a file open and writes on."""

    def __init__(self, path: Path) -> None:
        self.content = os.urandom(SIZE)
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
        os.write(self.fd, self.content[:FIRST])

    def end(self) -> None:
        os.write(self.fd, self.content[FIRST:])
        os.close(self.fd)


async def uploaded_two_parts(ground: Ground) -> None:
    await ground.s3.seen("UploadPart", 2, PATIENCE_S)

    async def is_known() -> bool:
        stream = (await ground.site.streams()).get("r.mp4")
        return stream is not None and stream.sent_high >= 3 * PART

    assert await reached(is_known, PATIENCE_S)


async def stored(ground: Ground, relpath: str, content: bytes) -> None:
    async def is_described() -> bool:
        return (await ground.stream(relpath)).state is StreamState.HANDED_OVER or (
            await ground.stream(relpath)
        ).state is StreamState.DESCRIBED

    assert await reached(is_described, PATIENCE_S), await ground.stream(relpath)
    assert await ground.site.store.read((await ground.stream(relpath)).key) == content
