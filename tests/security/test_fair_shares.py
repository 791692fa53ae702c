"""Whoever may write to the watched folder wants the recordings of others to wait: with very many
files, with one that claims more than any store holds, with one that goes away while it is sent."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.faults.registry import CannotRunError
from tests.faults.tiny_disk import tiny_disk
from tests.support.servers import SwiftServer
from tests.support.service import MIB, Site, open_site, reached

from cefmp4.model.stream import Stream, StreamState

pytestmark = [
    pytest.mark.integration,
    pytest.mark.acceptance,
    pytest.mark.asyncio(loop_scope="session"),
]

FOLDER = "attacked"
FILES = 2000
PART = 5 * MIB
RECORDED = 5 * PART
SPEED = 4 * MIB  # bytes a second


def drop(folder: Path, count: int, prefix: str) -> None:
    folder.mkdir(exist_ok=True)
    body = os.urandom(2048)
    for number in range(count):
        (folder / f"{prefix}{number:05}.mp4").write_bytes(body)


async def record(site: Site, relpath: str, size: int = RECORDED) -> int:
    """Returns how many bytes of it were stored when its writer closed it."""
    path = site.watched / relpath
    await asyncio.to_thread(path.parent.mkdir, exist_ok=True)
    block, began, written = os.urandom(MIB), time.monotonic(), 0
    with path.open("wb", buffering=0) as file:
        while written < size:
            written += file.write(block)
            await asyncio.sleep(max(0.0, began + written / SPEED - time.monotonic()))
        stream = await stream_at(site, relpath)
        parts = await site.checkpoints.load_parts(stream.id) if stream else {}
        return sum(part.size for part in parts.values())


async def stream_at(site: Site, relpath: str) -> Stream | None:
    return await site.checkpoints.load_stream_at(FOLDER, relpath)


async def is_stored(site: Site, relpath: str) -> bool:
    stream = await stream_at(site, relpath)
    return stream is not None and stream.is_proven


@asynccontextmanager
async def running(s3: SwiftServer, folder: Path, **settings: str) -> AsyncIterator[Site]:
    async with open_site(s3, folder, HANDOVER_JOBS="none", WATCH_DIR_ID=FOLDER, **settings) as site:
        yield site


@pytest.mark.alone
async def test_thousands_of_small_files_hold_up_no_recording(
    s3_server: SwiftServer, tmp_path: Path
) -> None:
    """Half of them lie there when the service starts, half are dropped while it runs; a recorder
    writes beside them, and in another folder a finished file waits as well."""
    async with running(s3_server, tmp_path) as site:
        flood = site.watched / "flood"
        await asyncio.to_thread(drop, flood, FILES // 2, "early")
        await site.service.start()
        await asyncio.to_thread(drop, flood, FILES // 2, "late")
        await asyncio.to_thread(drop, site.watched / "cam", 1, "short")
        assert await record(site, "flood/rec.mp4") > 0, "nothing was sent while it grew"

        async def both_are() -> bool:
            wanted = ("flood/rec.mp4", "cam/short00000.mp4")
            return all([await is_stored(site, relpath) for relpath in wanted])

        assert await reached(both_are, 20)
        done = sum(stream.is_proven for stream in (await site.streams()).values())
        assert done < FILES // 2, "the backlog was over: this shows nothing"


@pytest.mark.alone
async def test_a_file_of_nothing_but_holes_is_never_sent_and_says_why(
    s3_server: SwiftServer, tmp_path: Path
) -> None:
    async with running(s3_server, tmp_path) as site:
        await site.service.start()
        huge = site.watched / "huge.mp4"
        huge.touch()
        os.truncate(huge, 15 * 1024**4)
        await record(site, "cam/rec.mp4", 2 * PART)

        async def waits() -> bool:
            stream = await stream_at(site, "huge.mp4")
            return stream is not None and stream.state is StreamState.STALE

        assert await reached(waits, 10)
        stream = await stream_at(site, "huge.mp4")
        assert stream is not None
        assert stream.reason.startswith("mostly holes: 15728640 of 15728640 MiB")
        assert (stream.upload_id, stream.sent_high) == ("", 0)
        told = [line for line in (await site.service.said()).splitlines() if "held back" in line]
        assert ['"file_path": "huge.mp4"' in line for line in told] == [True]
        assert await reached(lambda: is_stored(site, "cam/rec.mp4"), 10)
        huge.unlink()

        async def is_over() -> bool:
            stream = await stream_at(site, "huge.mp4")
            return stream is not None and stream.state is StreamState.DROPPED

        assert await reached(is_over, 10)


@pytest.mark.alone
async def test_a_store_that_such_a_file_filled_is_free_again_when_it_is_removed(
    tmp_path: Path,
) -> None:
    """Its parts wait for room that only the end of its own upload can make."""
    try:
        async with tiny_disk(tmp_path / "state", 64 * MIB):
            s3 = SwiftServer(tmp_path / "state")
            await s3.start()
            try:
                await fill_and_remove(s3, tmp_path)
            finally:
                await s3.stop()
    except CannotRunError as error:
        pytest.skip(f"2026-11: {error}")


async def fill_and_remove(s3: SwiftServer, folder: Path) -> None:
    async with running(s3, folder, HOLES_LIMIT_BYTES=str(2**50)) as site:
        huge = site.watched / "huge.mp4"
        huge.touch()
        os.truncate(huge, 1024**4)
        await site.service.start()

        async def is_full() -> bool:
            return "the disk of the S3 server is full" in await site.service.said()

        assert await reached(is_full, 30)
        huge.unlink()
        await record(site, "cam/rec.mp4", 2 * PART)
        assert await reached(lambda: is_stored(site, "cam/rec.mp4"), 15)
        assert await site.store.list_uploads("") == []
