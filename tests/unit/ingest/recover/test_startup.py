"""Where the file of an unfinished stream is, when a service starts."""

import os
from dataclasses import replace

import pytest
from tests.support.ingest_site import Site
from tests.support.ingest_world import PART, World, bytes_of, open_growing

from cefmp4.ingest.fate import End
from cefmp4.ingest.recover.bucket_search import BucketSearch
from cefmp4.ingest.recover.startup import Startup
from cefmp4.metadata.document import build_document
from cefmp4.model.media import MediaInfo
from cefmp4.model.names import metadata_key
from cefmp4.model.part import PartPlan
from cefmp4.model.stream import FileStamp, StreamState
from cefmp4.recording.digests import crc_of
from cefmp4.recording.file import SourceFile


def startup_of(site: Site) -> Startup:
    world = site.world
    return Startup(
        checkpoints=world.checkpoints,
        bucket_search=BucketSearch(
            store=world.store, prefix="", hashing=world.hashing, plan=PartPlan(PART)
        ),
        index=world.index,
        claims=world.claims(),
        admission=world.admission(),
        uploader=world.uploader,
        completion=site.router.completion,
    )


def stamp_at(world: World, name: str) -> FileStamp:
    with SourceFile.open(str(world.folder), name) as source:
        return source.stamp()


@pytest.mark.parametrize("order", [1, -1])
async def test_a_renamed_file_is_found_beside_another_device_that_uses_its_inode(
    site: Site, order: int
) -> None:
    """Neither file hides the other, in whatever order the look found them."""
    world = site.world
    before = await open_growing(world, bytes_of(4 * PART))
    await before.record.release()
    (world.folder / "r.mp4").rename(world.folder / "new.mp4")
    mine = stamp_at(world, "new.mp4")
    world.write(bytes_of(4 * PART), name="z.mp4")
    found = {"new.mp4": mine, "z.mp4": replace(mine, device=mine.device + 1)}
    found = dict(list(found.items())[::order])
    assert await startup_of(site).place([before.record.stream], found) == ["new.mp4"]
    known = await world.checkpoints.load_stream_at("", "new.mp4")
    assert known is not None
    assert (known.id, known.state) == (before.record.stream.id, StreamState.UPLOADING)
    assert len(world.store.open_uploads) == 1


async def test_another_file_with_its_inode_size_and_date_is_not_its_own(site: Site) -> None:
    """No birth is known of the one that was there, so that the bytes must tell."""
    world = site.world
    before = await open_growing(world, bytes_of(4 * PART))
    stream = before.record.stream
    await before.record.release()
    (world.folder / "r.mp4").unlink()
    world.write(bytes_of(4 * PART), name="rear.mp4")
    there = stamp_at(world, "rear.mp4")
    stream = replace(stream, stamp=replace(there, birth_ns=0))
    assert await startup_of(site).place([stream], {"rear.mp4": there}) == []
    ended = await world.checkpoints.load_stream(stream.id)
    assert ended is not None
    assert (ended.state, ended.relpath) == (StreamState.FAILED, "r.mp4")
    assert world.store.open_uploads == {}
    second = await world.stored("rear.mp4")
    data = (world.folder / "rear.mp4").read_bytes()
    assert world.store.data(second.record.stream.key) == data


async def test_another_file_in_its_place_is_compared_before_it_is_stored(site: Site) -> None:
    """With the inode, the size and the date of the one whose parts were sent."""
    world, rear = site.world, bytes_of(4 * PART)
    before = await open_growing(world, bytes_of(4 * PART))
    stamp = (world.folder / "r.mp4").stat()
    await before.record.release()
    world.write(rear)
    os.utime(world.folder / "r.mp4", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    stream = (await world.stored()).record.stream
    assert world.store.data(stream.key) == rear
    assert world.store.open_uploads == {}


async def test_what_another_instance_stored_meanwhile_has_not_failed(site: Site) -> None:
    """Between our look at its record and our claim."""
    world = site.world
    before = await open_growing(world, bytes_of(4 * PART))
    seen = before.record.stream
    assert await world.finish(before) is End.STORED
    await before.record.move_to(StreamState.DESCRIBED)
    await before.record.release()
    (world.folder / "r.mp4").unlink()
    assert await startup_of(site).place([seen], {}) == []
    known = await world.checkpoints.load_stream(seen.id)
    assert known is not None
    assert (known.state, known.reason) == (StreamState.DESCRIBED, "")


@pytest.mark.parametrize("is_emptied_again", [False, True])
async def test_what_was_told_again_counts_only_while_it_is_known(
    site: Site, is_emptied_again: bool
) -> None:
    """A Redis that is emptied between the two has forgotten what was finished, and must count as
    emptied, or nobody tells it once more."""
    world = site.world
    world.write(bytes_of(2 * PART))
    stream = (await world.stored()).record.stream
    document = build_document(stream, [], MediaInfo(), bucket="b", watch_dir="/", processed_at=0.0)
    key = metadata_key(stream.key)
    await world.store.put_object(
        key, document, content_type="", metadata={}, crc64=crc_of(document)
    )
    startup = startup_of(site)
    world.checkpoints.wipe()
    await startup.restore(tuple)
    assert await world.checkpoints.load_stream(stream.id) is not None
    if is_emptied_again:
        world.checkpoints.wipe()
    await startup.finish_survey()
    assert await world.checkpoints.is_fresh() is is_emptied_again
