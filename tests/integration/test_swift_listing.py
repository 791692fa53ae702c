"""What the embedded S3 server holds, it lists: also after a moment in which it could not."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.support.fake_checkpoints import FakeCheckpointStore
from tests.support.servers import SwiftServer

from cefmp4.errors import CefError, TransientError
from cefmp4.ingest.recover.orphans import OrphanSweeper
from cefmp4.model.names import META_STREAM_ID
from cefmp4.model.object import FileRange
from cefmp4.model.part import Part
from cefmp4.recording.digests import crc_of
from cefmp4.retry import no_waiting
from cefmp4.storage.s3.store import S3Store, open_s3_store

pytestmark = pytest.mark.integration

SOON_S = 10.0


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[SwiftServer]:
    server = SwiftServer(tmp_path / "own")
    await server.start()
    yield server
    await server.stop()


async def put(store: S3Store, key: str) -> None:
    await store.put_object(key, b"x", content_type="video/mp4", metadata={}, crc64=crc_of(b"x"))


async def listed(store: S3Store) -> list[str]:
    return [stored.key async for stored in store.list_objects("")]


@contextlib.contextmanager
def no_listing_can_be_written(folder: Path) -> Iterator[None]:
    """The server notes changes of a listing in a file beside it: not while a folder is there."""
    listings = [path for path in folder.rglob("*.db") if "/containers/" in str(path)]
    assert listings
    blocks = [path.with_name(f"{path.name}.pending") for path in listings]
    for block in blocks:
        block.unlink(missing_ok=True)
        block.mkdir()
    try:
        yield
    finally:
        for block in blocks:
            block.rmdir()


@contextlib.contextmanager
def no_note_can_be_left(folder: Path) -> Iterator[None]:
    """Of a listing that could not be written."""
    (device,) = folder.rglob("devices/d1")
    notes = device / "async_pending"
    assert not notes.exists()
    notes.touch()
    try:
        yield
    finally:
        notes.unlink()


async def test_an_update_of_the_listing_that_failed_is_repeated(
    server: SwiftServer, tmp_path: Path
) -> None:
    async with open_s3_store(server.config(await server.new_bucket())) as store:
        await put(store, "before")
        with no_listing_can_be_written(tmp_path / "own"):
            await put(store, "unlisted")
            assert await store.head("unlisted") is not None
        async with asyncio.timeout(SOON_S):
            while "unlisted" not in await listed(store):  # noqa: ASYNC110  # another process
                await asyncio.sleep(0.1)


async def test_it_is_repeated_by_the_next_start(server: SwiftServer, tmp_path: Path) -> None:
    async with open_s3_store(server.config(await server.new_bucket())) as store:
        with no_listing_can_be_written(tmp_path / "own"):
            await put(store, "unlisted")
            server.kill()
        await server.start()
        async with asyncio.timeout(SOON_S):
            while "unlisted" not in await listed(store):  # noqa: ASYNC110  # another process
                await asyncio.sleep(0.1)


async def test_it_is_repeated_where_not_even_a_note_could_be_left(
    server: SwiftServer, tmp_path: Path
) -> None:
    """The disk is full to the last byte: the request fails, but what it did is done."""
    folder = tmp_path / "own"
    async with open_s3_store(server.config(await server.new_bucket())) as store:
        await put(store, "deleted")
        await put(store, "before")
        assert await listed(store) == ["before", "deleted"]
        with no_listing_can_be_written(folder), no_note_can_be_left(folder), no_waiting():
            with pytest.raises(TransientError):
                await put(store, "unlisted")
            with contextlib.suppress(TransientError):
                await store.delete("deleted")
        async with asyncio.timeout(SOON_S):
            while await listed(store) != ["before", "unlisted"]:  # noqa: ASYNC110  # as above
                await asyncio.sleep(0.1)


async def test_a_complete_that_failed_half_way_is_made_whole_and_not_aborted(
    server: SwiftServer, tmp_path: Path
) -> None:
    """The object is there, and its upload, too: an abort of that would take the bytes away."""
    stream_id = "20260101T000000Z-0000aaaa"
    key, data, folder = f"streams/{stream_id}/r.mp4", os.urandom(1000), tmp_path / "own"
    (tmp_path / "r.mp4").write_bytes(data)
    checkpoints = FakeCheckpointStore()
    await checkpoints.mark_used()
    async with open_s3_store(server.config(await server.new_bucket())) as store:
        upload_id = await store.begin_upload(
            key, content_type="video/mp4", metadata={META_STREAM_ID: stream_id}
        )
        with (tmp_path / "r.mp4").open("rb") as file:
            body, crc64 = FileRange(file.fileno(), 0, len(data)), crc_of(data)
            etag = await store.put_part(key, upload_id, 1, body, crc64=crc64)
        part = Part(number=1, size=len(data), crc64=crc64, etag=etag, uploaded_at=0.0)
        assert [one.key for one in await store.list_uploads("")] == [key]
        with (
            no_listing_can_be_written(folder),
            no_note_can_be_left(folder),
            no_waiting(),
            pytest.raises(CefError),
        ):
            await store.complete_upload(
                key, upload_id, [part], crc64=crc64, owner=stream_id, if_absent=True
            )
        assert await store.head(key) is not None
        assert [one.key for one in await store.list_uploads("")] == [key]
        sweeper = OrphanSweeper(store=store, checkpoints=checkpoints, prefix="", grace_s=0.0)
        await sweeper.step(time.time() + 1.0)
        assert await store.read(key) == data
        assert await store.list_uploads("") == []
        assert await listed(store) == [key]
