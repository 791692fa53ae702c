"""The embedded S3 server on a disk that is full, and then is not."""

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from awscrt.checksums import crc64nvme
from tests.faults.registry import CannotRunError
from tests.faults.tiny_disk import fill, tiny_disk
from tests.servers import SwiftServer

from cefmp4 import metrics
from cefmp4.errors import StoreFullError
from cefmp4.model.object import FileRange
from cefmp4.model.part import MIB, MIN_PART_BYTES
from cefmp4.retry import patiently
from cefmp4.storage.s3 import S3Store, open_s3_store

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


async def test_a_part_waits_with_the_right_words_and_goes_on_soon(
    store: S3Store, part: FileRange, tmp_path: Path
) -> None:
    upload_id = await store.begin_upload("k", content_type="video/mp4", metadata={})
    await send(store, upload_id, 1, part)
    ballast = await asyncio.to_thread(fill, tmp_path / "state")
    with pytest.raises(StoreFullError, match="the disk of the S3 server is full"):
        await send(store, upload_id, 2, part)
    assert metrics.is_server_full("s3")
    assert not metrics.is_server_down("s3")
    waiting = asyncio.create_task(
        patiently(lambda: send(store, upload_id, 2, part), what="part upload")
    )
    await refused_again(12)  # by then a back-off has grown
    assert not waiting.done()
    await asyncio.to_thread(ballast.unlink)
    freed_at = time.monotonic()
    await waiting
    assert time.monotonic() - freed_at < SOON_S
    assert not metrics.is_server_full("s3")


async def test_a_full_disk_can_be_read_and_freed(
    store: S3Store, part: FileRange, tmp_path: Path
) -> None:
    """What is stored stays readable, and deleting is a way out."""
    for number in range(30):
        upload_id = await store.begin_upload("k", content_type="video/mp4", metadata={})
        try:
            await send(store, upload_id, number + 1, part)
        except StoreFullError:
            break
    free = shutil.disk_usage(tmp_path / "state").free
    assert 0 < free < 2 * part.size
    uploads = await store.list_uploads("k")
    listed = await store.list_parts("k", uploads[0].upload_id)
    assert [one.size for one in listed] == [part.size]
    for upload in uploads:
        await store.abort_upload("k", upload.upload_id)
    upload_id = await store.begin_upload("k", content_type="video/mp4", metadata={})
    await send(store, upload_id, 1, part)
