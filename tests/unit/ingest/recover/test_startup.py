"""Where the file of an unfinished stream is, when a service starts."""

import os
from dataclasses import replace
from unittest.mock import patch

import pytest
from tests.support.rig import PART, Rig, bytes_of, open_growing

from cefmp4.ingest.fate import End
from cefmp4.metadata.document import build_document
from cefmp4.model.media import MediaInfo
from cefmp4.model.names import metadata_key
from cefmp4.model.stream import FileStamp, Stream, StreamState
from cefmp4.recording.digests import crc_of
from cefmp4.recording.file import SourceFile

pytestmark = pytest.mark.leaps


async def caught_up(rig: Rig, stream: Stream, found: dict[str, FileStamp]) -> list[str]:
    startup = rig.service().startup
    startup.unplaced.append(stream)
    return await startup.catch_up(found, lambda _: True)


def stamp_at(rig: Rig, name: str) -> FileStamp:
    with SourceFile.open(str(rig.folder), name) as source:
        return source.stamp()


@pytest.mark.parametrize("order", [1, -1])
async def test_a_renamed_file_is_found_beside_another_device_that_uses_its_inode(
    rig: Rig, order: int
) -> None:
    """Neither file hides the other, in whatever order the look found them."""
    before = await open_growing(rig, bytes_of(4 * PART))
    await before.record.release()
    (rig.folder / "r.mp4").rename(rig.folder / "new.mp4")
    mine = stamp_at(rig, "new.mp4")
    rig.write(bytes_of(4 * PART), name="z.mp4")
    found = {"new.mp4": mine, "z.mp4": replace(mine, device=mine.device + 1)}
    found = dict(list(found.items())[::order])
    assert await caught_up(rig, before.record.stream, found) == ["new.mp4"]
    known = await rig.checkpoints.load_stream_at("", "new.mp4")
    assert known is not None
    assert (known.id, known.state) == (before.record.stream.id, StreamState.UPLOADING)
    assert len(rig.store.open_uploads) == 1


async def test_another_file_with_its_inode_size_and_date_is_not_its_own(rig: Rig) -> None:
    """No birth is known of the one that was there, so that the bytes must tell."""
    before = await open_growing(rig, bytes_of(4 * PART))
    stream = before.record.stream
    await before.record.release()
    (rig.folder / "r.mp4").unlink()
    rig.write(bytes_of(4 * PART), name="rear.mp4")
    there = stamp_at(rig, "rear.mp4")
    stream = replace(stream, stamp=replace(there, birth_ns=0))
    assert await caught_up(rig, stream, {"rear.mp4": there}) == []
    ended = await rig.checkpoints.load_stream(stream.id)
    assert ended is not None
    assert (ended.state, ended.relpath) == (StreamState.FAILED, "r.mp4")
    assert rig.store.open_uploads == {}
    second = await rig.stored("rear.mp4")
    data = (rig.folder / "rear.mp4").read_bytes()
    assert rig.store.data(second.record.stream.key) == data


async def test_another_file_in_its_place_is_compared_before_it_is_stored(rig: Rig) -> None:
    """With the inode, the size and the date of the one whose parts were sent."""
    rear = bytes_of(4 * PART)
    before = await open_growing(rig, bytes_of(4 * PART))
    stamp = (rig.folder / "r.mp4").stat()
    await before.record.release()
    rig.write(rear)
    os.utime(rig.folder / "r.mp4", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    stream = (await rig.stored()).record.stream
    assert rig.store.data(stream.key) == rear
    assert rig.store.open_uploads == {}


async def test_what_another_instance_stored_meanwhile_has_not_failed(rig: Rig) -> None:
    """Between our look at its record and our claim."""
    before = await open_growing(rig, bytes_of(4 * PART))
    seen = before.record.stream
    assert await rig.finish(before) is End.STORED
    await before.record.move_to(StreamState.DESCRIBED)
    await before.record.release()
    (rig.folder / "r.mp4").unlink()
    assert await caught_up(rig, seen, {}) == []
    known = await rig.checkpoints.load_stream(seen.id)
    assert known is not None
    assert (known.state, known.reason) == (StreamState.DESCRIBED, "")


@pytest.mark.parametrize("is_emptied_again", [False, True])
async def test_what_was_told_again_counts_only_while_it_is_known(
    rig: Rig, is_emptied_again: bool
) -> None:
    """A Redis that is emptied between the two has forgotten what was finished, and must count as
    emptied, or nobody tells it once more."""
    rig.write(bytes_of(2 * PART))
    stream = (await rig.stored()).record.stream
    document = build_document(stream, [], MediaInfo(), bucket="b", watch_dir="/", processed_at=0.0)
    key = metadata_key(stream.key)
    await rig.store.put_object(key, document, content_type="", metadata={}, crc64=crc_of(document))
    startup = rig.service().startup
    rig.checkpoints.wipe()
    await startup.restore(tuple)
    assert await rig.checkpoints.load_stream(stream.id) is not None
    if is_emptied_again:
        rig.checkpoints.wipe()
    mark_used = rig.checkpoints.mark_used

    async def mark_used_meanwhile(folder: str) -> None:
        assert startup.is_surveying, "else it would seem to have been emptied again"
        await mark_used(folder)

    with patch.object(rig.checkpoints, "mark_used", mark_used_meanwhile):
        await startup.finish_survey()
    assert not startup.is_surveying
    assert await rig.checkpoints.is_fresh() is is_emptied_again
