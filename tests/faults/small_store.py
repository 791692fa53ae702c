"""An S3 server on a small disk of its own, which a scenario fills and frees."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.faults.judge import Judge
from tests.faults.s3_client import open_client
from tests.faults.tiny_disk import fill, tiny_disk
from tests.faults.world import MIB, World
from tests.support.servers import SwiftServer

SIZE = 256 * MIB


class SmallStore:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ballast: Path | None = None

    async def fill(self) -> None:
        self._ballast = await asyncio.to_thread(fill, self._folder)

    async def free(self) -> None:
        if self._ballast is not None:
            await asyncio.to_thread(self._ballast.unlink)
            self._ballast = None


async def give_small_store(world: World, size: int = SIZE) -> SmallStore:
    """The world's S3 server from now on; before any service starts."""
    folder = world.folder / "small-store"
    await world.enter(tiny_disk(folder, size))
    server = SwiftServer(folder)
    await world.enter(_running(server, world.folder / "small-store.log"))
    client = await world.closing.enter_async_context(open_client(server))
    world.s3_server, world.client = server, client
    world.bucket = await server.new_bucket()
    world.s3.upstream_port = server.port
    world.judge = Judge(client, world.bucket, world.valkey.url)
    return SmallStore(folder)


@asynccontextmanager
async def _running(server: SwiftServer, log: Path) -> AsyncIterator[None]:
    """Its log is kept: its disk goes with it."""
    await server.start()
    try:
        yield
    finally:
        await server.stop()
        await asyncio.to_thread(log.write_text, server.log_text)
