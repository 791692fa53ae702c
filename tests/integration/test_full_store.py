"""The embedded S3 server on a disk that is full, and then is not."""

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from awscrt.checksums import crc64nvme
from redis.asyncio import Redis
from tests.faults.registry import CannotRunError
from tests.faults.tiny_disk import fill, tiny_disk
from tests.support.servers import SwiftServer, ValkeyServer

from cefmp4 import metrics
from cefmp4.embedded.supervisor import embedded_servers
from cefmp4.errors import CefError, StoreFullError
from cefmp4.model.object import FileRange
from cefmp4.model.part import MIB, MIN_PART_BYTES
from cefmp4.reachability import S3
from cefmp4.retry import patiently
from cefmp4.storage.s3.store import S3Store, open_s3_store

pytestmark = pytest.mark.integration

DISK = 48 * MIB
SOON_S = 3.0  # within which whoever made room sees that it helped


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[SwiftServer]:
    try:
        async with tiny_disk(tmp_path / "state", DISK):
            server = SwiftServer(tmp_path / "state")
            await server.start()
            yield server
            await server.stop()
    except CannotRunError as error:
        pytest.skip(f"2026-11: {error}")


@pytest.fixture
async def store(server: SwiftServer) -> AsyncIterator[S3Store]:
    async with open_s3_store(server.config(await server.new_bucket())) as store:
        yield store


@pytest.fixture
def part(tmp_path: Path) -> Iterator[FileRange]:
    (tmp_path / "file").write_bytes(os.urandom(MIN_PART_BYTES))
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    yield FileRange(fd, 0, MIN_PART_BYTES)
    os.close(fd)


async def send(store: S3Store, upload_id: str, number: int, part: FileRange) -> str:
    crc64 = crc64nvme(os.pread(part.fd, part.size, part.offset))
    return await store.put_part("k", upload_id, number, part, crc64=crc64)


async def refused_again(times: int) -> None:
    def count() -> float:
        return metrics.REGISTRY.get_sample_value("cefmp4_retries_total", {"server": "s3"}) or 0.0

    enough = count() + times
    async with asyncio.timeout(60):
        while count() < enough:  # noqa: ASYNC110  # a counter sets no event
            await asyncio.sleep(0.05)


@pytest.mark.alone
async def test_a_part_waits_with_the_right_words_and_goes_on_soon(
    store: S3Store, part: FileRange, tmp_path: Path
) -> None:
    upload_id = await store.begin_upload("k", content_type="video/mp4", metadata={})
    await send(store, upload_id, 1, part)
    ballast = await asyncio.to_thread(fill, tmp_path / "state")
    with pytest.raises(StoreFullError, match="the disk of the S3 server is full"):
        await send(store, upload_id, 2, part)
    assert S3.troubles == ["the disk of the S3 server is full"]
    waiting = asyncio.create_task(
        patiently(lambda: send(store, upload_id, 2, part), what="part upload")
    )
    await refused_again(12)  # by then a back-off has grown
    assert not waiting.done()
    await asyncio.to_thread(ballast.unlink)
    freed_at = time.monotonic()
    await waiting
    assert time.monotonic() - freed_at < SOON_S
    assert not S3.is_full


async def test_a_server_on_a_full_disk_lives_and_starts_again(
    store: S3Store, server: SwiftServer, part: FileRange, tmp_path: Path
) -> None:
    """Its log cannot be written either, and its own files cannot be made anew."""
    upload_id = await store.begin_upload("k", content_type="video/mp4", metadata={})
    ballast = await asyncio.to_thread(fill, tmp_path / "state")
    for _ in range(2):
        with pytest.raises(StoreFullError):
            await send(store, upload_id, 1, part)
        await asyncio.gather(*(hang_up(server.port) for _ in range(20)))
        assert server.process.is_running
        server.kill()
        await server.start()
    await asyncio.to_thread(ballast.unlink)
    await send(store, upload_id, 1, part)


async def hang_up(port: int) -> None:
    """In mid-request, which the server writes into its log."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"PUT /b/k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx")
    await writer.drain()
    writer.transport.abort()


async def test_a_redis_on_a_full_disk_starts_again(tmp_path: Path) -> None:
    try:
        async with tiny_disk(tmp_path / "state", DISK):
            server = ValkeyServer(tmp_path / "state")
            await server.start()
            async with Redis.from_url(server.url) as client:
                await client.set("a", "b")
            ballast = await asyncio.to_thread(fill, tmp_path / "state")
            server.kill()
            await server.start()
            await asyncio.to_thread(ballast.unlink)
            async with Redis.from_url(server.url) as client:
                assert await client.get("a") == b"b"
                await client.set("a", "c")
            await server.stop()
    except CannotRunError as error:
        pytest.skip(f"2026-11: {error}")


async def test_up_says_that_its_disk_is_full(tmp_path: Path) -> None:
    try:
        async with tiny_disk(tmp_path / "state", DISK):
            await asyncio.to_thread(fill, tmp_path / "state")
            with pytest.raises(CefError, match="its disk is full"):
                async with embedded_servers(
                    tmp_path / "state", want_redis=True, want_s3=True, bucket="films"
                ):
                    pass
    except CannotRunError as error:
        pytest.skip(f"2026-11: {error}")


async def test_a_full_disk_can_be_read_and_freed(
    store: S3Store, part: FileRange, tmp_path: Path
) -> None:
    """What is stored stays readable, and deleting is a way out."""
    sent = 0
    with suppress(StoreFullError):
        while sent < 30:
            upload_id = await store.begin_upload("k", content_type="video/mp4", metadata={})
            await send(store, upload_id, sent + 1, part)
            sent += 1
    free = shutil.disk_usage(tmp_path / "state").free
    assert 0 < free < 2 * part.size
    uploads = await store.list_uploads("k")
    listed = [one for up in uploads for one in await store.list_parts("k", up.upload_id)]
    assert [one.size for one in listed] == [part.size] * sent
    for upload in uploads:
        await store.abort_upload("k", upload.upload_id)
    upload_id = await store.begin_upload("k", content_type="video/mp4", metadata={})
    await send(store, upload_id, 1, part)
