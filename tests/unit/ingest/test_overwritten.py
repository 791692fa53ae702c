"""A shorter recording that is written over a longer one loses nothing; a file cut off does."""

import os

import pytest
from tests.support.rig import PART, Rig, bytes_of, open_growing

from cefmp4 import metrics
from cefmp4.ingest.fate import End
from cefmp4.model.stream import StreamState

pytestmark = pytest.mark.leaps


def overwritten() -> float:
    count: float = metrics.stale_outcomes.labels("overwritten")._value.get()
    return count


async def test_a_shorter_recording_over_one_in_mid_upload_is_stored(rig: Rig) -> None:
    before, failed = overwritten(), metrics.streams_failed._value.get()
    processor = await open_growing(rig, bytes_of(6 * PART))
    shorter = os.urandom(3 * PART + 99)
    rig.write(shorter)
    os.truncate(rig.folder / "r.mp4", len(shorter))
    assert await rig.finish(processor) is End.STORED
    assert rig.store.data(processor.record.stream.key) == shorter
    assert rig.store.open_uploads == {}
    assert overwritten() == before + 1
    assert metrics.streams_failed._value.get() == failed


async def test_over_a_stored_recording_in_place_as_rsync_does(rig: Rig) -> None:
    """It is as long as the former one until the last moment, and what was sent then is a prefix."""
    data = bytes_of(6 * PART)
    rig.write(data)
    first = await rig.stored()
    shorter = os.urandom(PART // 2)
    rig.write(shorter)
    second = await rig.admit()
    assert second is not None
    await rig.look(second)
    assert second.record.stream.sent_high > len(shorter)
    os.truncate(rig.folder / "r.mp4", len(shorter))
    assert await rig.finish(second) is End.STORED
    assert second.record.stream.generation == 2
    assert rig.store.data(second.record.stream.key) == shorter
    assert rig.store.data(first.record.stream.key) == data


async def test_a_file_cut_off_fails_though_a_part_of_it_was_patched(rig: Rig) -> None:
    processor = await open_growing(rig, bytes_of(8 * PART))
    rig.write(b"patched", PART + 5)
    os.truncate(rig.folder / "r.mp4", 5 * PART)
    assert await rig.finish(processor) is End.TRUNCATED
    assert processor.record.stream.state is StreamState.FAILED
