"""A shorter recording that is written over a longer one loses nothing; a file cut off does."""

import os

from tests.support.ingest_world import PART, World, bytes_of, open_growing

from cefmp4 import metrics
from cefmp4.ingest.fate import End
from cefmp4.model.stream import StreamState


def overwritten() -> float:
    count: float = metrics.stale_outcomes.labels("overwritten")._value.get()
    return count


async def test_a_shorter_recording_over_one_in_mid_upload_is_stored(world: World) -> None:
    before, failed = overwritten(), metrics.streams_failed._value.get()
    processor = await open_growing(world, bytes_of(6 * PART))
    shorter = os.urandom(3 * PART + 99)
    world.write(shorter)
    os.truncate(world.folder / "r.mp4", len(shorter))
    assert await world.finish(processor) is End.STORED
    assert world.store.data(processor.record.stream.key) == shorter
    assert world.store.open_uploads == {}
    assert overwritten() == before + 1
    assert metrics.streams_failed._value.get() == failed


async def test_over_a_stored_recording_in_place_as_rsync_does(world: World) -> None:
    """It is as long as the former one until the last moment, and what was sent then is a prefix."""
    data = bytes_of(6 * PART)
    world.write(data)
    first = await world.stored()
    shorter = os.urandom(PART // 2)
    world.write(shorter)
    second = await world.admit()
    assert second is not None
    await world.look(second)
    assert second.record.stream.sent_high > len(shorter)
    os.truncate(world.folder / "r.mp4", len(shorter))
    assert await world.finish(second) is End.STORED
    assert second.record.stream.generation == 2
    assert world.store.data(second.record.stream.key) == shorter
    assert world.store.data(first.record.stream.key) == data


async def test_a_file_cut_off_fails_though_a_part_of_it_was_patched(world: World) -> None:
    processor = await open_growing(world, bytes_of(8 * PART))
    world.write(b"patched", PART + 5)
    os.truncate(world.folder / "r.mp4", 5 * PART)
    assert await world.finish(processor) is End.TRUNCATED
    assert processor.record.stream.state is StreamState.FAILED
