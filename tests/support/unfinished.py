"""Many streams that a kill left unfinished, made without uploading for minutes: the records, the
open uploads and the files are as the service would have left them, but with small parts."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import md5
from pathlib import Path

from tests.support.service import Site

from cefmp4.model import names
from cefmp4.model.object import FileRange
from cefmp4.model.part import Part
from cefmp4.model.stream import Stream, StreamState
from cefmp4.recording.digests import crc_of
from cefmp4.recording.stamps import birth_ns, stamp_of

PART = 16 * 1024
FOLDER = "a-folder-of-many"  # WATCH_DIR_ID
AT_ONCE = 16


@contextmanager
def recordings(folder: Path, count: int) -> Iterator[list[tuple[str, int]]]:
    """Files that their writer, ourselves, has open still. Name and descriptor of each."""
    files: list[tuple[str, int]] = []
    try:
        for number in range(count):
            name = f"{number:04}.mp4"
            fd = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
            files.append((name, fd))
            os.write(fd, bytes([number % 251]) * PART * 3 + name.encode())
        yield files
    finally:
        for _, fd in files:
            os.close(fd)


async def leave_unfinished(site: Site, files: list[tuple[str, int]]) -> None:
    gate = asyncio.Semaphore(AT_ONCE)

    async def leave(name: str, fd: int) -> None:
        async with gate:
            await _leave(site, name, fd)

    await asyncio.gather(*(leave(name, fd) for name, fd in files))
    await site.checkpoints.mark_used(FOLDER)


async def _leave(site: Site, name: str, fd: int) -> None:
    stamp = stamp_of(os.fstat(fd), birth_ns(fd))
    stream_id = names.new_stream_id(stamp.mtime_ns / 1e9, FOLDER)
    key = f"streams/{stream_id}/{name}"
    upload_id = await site.store.begin_upload(
        key, content_type="video/mp4", metadata={names.META_STREAM_ID: stream_id}
    )
    stream = Stream(
        id=stream_id,
        relpath=name,
        folder=FOLDER,
        state=StreamState.UPLOADING,
        key=key,
        upload_id=upload_id,
        part_base=PART,
        size=stamp.size,
        sent_high=2 * PART,
        stamp=stamp,
        started_at=stamp.mtime_ns / 1e9,
    )
    lease = await site.checkpoints.claim(stream, "killed")
    assert lease is not None
    content = os.pread(fd, PART, PART)
    crc64 = crc_of(content)
    etag = await site.store.put_part(
        stream.key, stream.upload_id, 2, FileRange(fd, PART, PART), crc64=crc64
    )
    assert etag == md5(content, usedforsecurity=False).hexdigest()
    part = Part(number=2, size=PART, crc64=crc64, etag=etag, uploaded_at=stream.started_at)
    await site.checkpoints.save(stream, lease, parts=[part])
    await site.checkpoints.release(lease)
