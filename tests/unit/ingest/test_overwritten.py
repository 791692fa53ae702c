"""A shorter recording that is written over a longer one loses nothing; a file cut off does."""

import asyncio
import hashlib
import os
from typing import Any
from unittest.mock import patch

import pytest
from tests.support.rig import PART, Rig, bytes_of, open_growing

from cefmp4 import metrics
from cefmp4.ingest.fate import End
from cefmp4.metadata.document import read_document
from cefmp4.model.stream import Stream, StreamState
from cefmp4.recording.digests import crc_of
from cefmp4.tasks import cancel_all

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


async def killed_when_it_was_completed(rig: Rig, data: bytes) -> Stream:
    """The object is there, and nobody was told of it."""
    processor = await open_growing(rig, data)
    complete_upload, is_complete = rig.store.complete_upload, asyncio.Event()

    async def complete_and_die(*place: Any, **words: Any) -> str:
        await complete_upload(*place, **words)
        is_complete.set()
        await asyncio.Event().wait()
        raise AssertionError

    with patch.object(rig.store, "complete_upload", complete_and_die):
        finishing = asyncio.create_task(rig.finish(processor))
        await is_complete.wait()
        await cancel_all({finishing})
    return processor.record.stream


async def test_what_was_completed_before_a_crash_is_stored_whatever_the_file_is_now(
    rig: Rig,
) -> None:
    data, shorter = bytes_of(4 * PART + 9), bytes_of(2 * PART)
    await killed_when_it_was_completed(rig, data)
    rig.write(shorter)
    os.truncate(rig.folder / "r.mp4", len(shorter))
    again = await rig.admit()
    assert again is not None
    assert again.end is End.STORED
    assert await rig.service().router.completion.conclude(again), "the file is another one now"
    first = again.record.stream
    assert (first.size, first.crc64) == (len(data), crc_of(data))
    assert first.sha256 == hashlib.sha256(data).hexdigest()
    second = await rig.stored()
    assert second.record.stream.previous_id == first.id
    assert rig.store.data(first.key) == data
    assert rig.store.data(second.record.stream.key) == shorter


async def test_what_was_completed_before_a_crash_is_stored_where_the_file_is_gone(rig: Rig) -> None:
    data = bytes_of(4 * PART + 9)
    stream = await killed_when_it_was_completed(rig, data)
    os.unlink(rig.folder / "r.mp4")
    startup = rig.service().startup
    startup.unplaced.append(stream)
    await startup.catch_up({}, lambda _: True)
    ended = await rig.checkpoints.load_stream(stream.id)
    assert ended is not None
    assert ended.state is StreamState.DESCRIBED
    found = await read_document(rig.store, stream.key, stream.plan)
    assert found is not None
    assert found.stream.sha256 == hashlib.sha256(data).hexdigest()
