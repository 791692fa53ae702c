"""A file that goes away ends what is done for it, wherever that waits."""

import asyncio
import os
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
from tests.support.rig import PART, Rig, bytes_of, open_growing

from cefmp4.errors import AccessDeniedError, TransientError
from cefmp4.ingest.fate import End
from cefmp4.ingest.processor import HOLES_PATIENCE_S
from cefmp4.model.part import GIB
from cefmp4.model.stream import StreamState
from cefmp4.tasks import cancel_all

pytestmark = pytest.mark.leaps


@pytest.mark.parametrize("is_finished", [False, True])
async def test_a_part_on_a_wire_that_hangs_is_cut_off(rig: Rig, is_finished: bool) -> None:
    processor = await open_growing(rig, bytes_of(4 * PART))
    if not is_finished:
        rig.write(bytes_of(4 * PART), at=4 * PART)
    with rig.store.pause("put_part") as gate:
        processor.observe(processor.source.look())
        rig.clock.pass_by(3.0 if is_finished else 0.0)
        step = asyncio.create_task(rig.step(processor))
        async with asyncio.timeout(10):
            await gate.reached.wait()
            os.unlink(rig.folder / "r.mp4")
            rig.clock.pass_by(1.0)
            processor.observe(processor.source.look())
            rig.clock.pass_by(60.0)
            await step
        calls = rig.store.calls["put_part"]
        while processor.end is None:
            await rig.look(processor)
    assert processor.end is End.FAILED
    assert "missing" in processor.record.stream.reason
    assert rig.store.open_uploads == {}
    assert rig.store.calls["put_part"] == calls


async def test_an_upload_whose_beginning_is_cut_off_is_aborted(rig: Rig) -> None:
    """S3 has begun it by then, and nobody but this answer tells its id."""
    rig.write(bytes_of(4 * PART))
    processor = await rig.admit()
    assert processor is not None
    begin_upload, has_begun = rig.store.begin_upload, asyncio.Event()

    async def begin_slowly(key: str, **words: Any) -> str:
        upload_id = await begin_upload(key, **words)
        has_begun.set()
        await asyncio.sleep(1.0)
        return upload_id

    with patch.object(rig.store, "begin_upload", begin_slowly):
        step = asyncio.create_task(rig.step(processor))
        await has_begun.wait()
        os.unlink(rig.folder / "r.mp4")
        processor.observe(processor.source.look())
        rig.clock.pass_by(60.0)
        await step
    while processor.end is None:
        await rig.look(processor)
    assert processor.end is End.FAILED
    assert rig.store.open_uploads == {}


async def test_a_store_that_is_away_keeps_no_file_that_is_gone(rig: Rig) -> None:
    processor = await open_growing(rig, bytes_of(4 * PART))
    rig.store.fail("put_part", TransientError("away"), times=1_000_000)
    rig.write(bytes_of(4 * PART), at=4 * PART)
    processor.observe(processor.source.look())
    step = asyncio.create_task(rig.step(processor))
    await asyncio.sleep(0.05)
    assert not step.done()
    os.unlink(rig.folder / "r.mp4")
    processor.observe(processor.source.look())
    rig.clock.pass_by(60.0)
    async with asyncio.timeout(10):
        await step
    await rig.look(processor)
    assert processor.end is End.FAILED


async def test_no_part_begins_once_the_name_is_gone(rig: Rig) -> None:
    processor = await open_growing(rig, bytes_of(4 * PART))
    before = rig.store.calls["put_part"]
    rig.write(bytes_of(4 * PART), at=4 * PART)
    os.unlink(rig.folder / "r.mp4")
    processor.source.look()  # a look that the stream was not told of yet
    await rig.step(processor)
    assert rig.store.calls["put_part"] == before


async def test_a_rename_that_comes_late_stops_nothing(rig: Rig) -> None:
    data = bytes_of(4 * PART)
    processor = await open_growing(rig, data)
    os.rename(rig.folder / "r.mp4", rig.folder / "s.mp4")
    await rig.look(processor)
    processor.renamed("s.mp4")
    assert await rig.finish(processor) is End.STORED
    assert rig.store.data(processor.record.stream.key) == data


async def test_what_was_being_proven_waits_for_its_data_too(rig: Rig) -> None:
    rig.write(b"")
    os.truncate(rig.folder / "r.mp4", 15 * 1024 * GIB)
    processor = await rig.admit()
    assert processor is not None
    await processor.record.move_to(StreamState.FINALIZING)  # and then there was a crash
    processor._file._trusts_ctime = True  # as on a local disk
    sample = processor.source.look()
    long_ago = int((rig.clock() - 60.0) * 1e9)
    processor.observe(replace(sample, stamp=replace(sample.stamp, ctime_ns=long_ago)))
    await rig.step(processor)
    assert processor.end is None
    assert processor.record.stream.state is StreamState.STALE


async def test_what_is_mostly_holes_waits_and_fails_with_a_reason(rig: Rig) -> None:
    rig.write(b"")
    os.truncate(rig.folder / "r.mp4", 15 * 1024 * GIB)
    processor = await rig.admit()
    assert processor is not None
    for _ in range(3):
        await rig.look(processor)
        rig.clock.pass_by(3.0)
    stream = processor.record.stream
    assert (processor.end, stream.state) == (None, StreamState.STALE)
    assert "mostly holes" in stream.reason
    rig.clock.pass_by(HOLES_PATIENCE_S)
    await rig.look(processor)
    assert processor.end is End.FAILED
    assert "HOLES_LIMIT_BYTES" in stream.reason
    assert rig.store.calls["put_part"] == rig.store.calls["begin_upload"] == 0
    rig.index.add(stream)
    await processor.record.release()
    assert await rig.admit() is None, "it is looked at again although nothing changed"
    os.truncate(rig.folder / "r.mp4", 0)
    rig.write(data := bytes_of(2 * PART))
    again = await rig.stored()
    assert rig.store.data(again.record.stream.key) == data


async def test_what_gets_its_data_while_it_waits_is_stored(rig: Rig) -> None:
    rig.write(b"")
    os.truncate(rig.folder / "r.mp4", 15 * 1024 * GIB)
    processor = await rig.admit()
    assert processor is not None
    await rig.look(processor)
    rig.clock.pass_by(3.0)
    await rig.look(processor)
    assert processor.record.stream.state is StreamState.STALE
    data = bytes_of(3 * PART)
    os.truncate(rig.folder / "r.mp4", len(data))
    rig.write(data)
    assert await rig.finish(processor) is End.STORED
    assert rig.store.data(processor.record.stream.key) == data
    assert processor.record.stream.reason == ""


async def test_a_stream_that_the_store_refuses_holds_no_slot(rig: Rig) -> None:
    """Its name may have been chosen for that."""
    rig.set(max_parts_in_flight=1, max_concurrent_streams=1)
    rig.write(bytes_of(6 * PART), name="sick.mp4")
    rig.write(data := bytes_of(6 * PART), name="well.mp4")
    sick, well = await rig.admit("sick.mp4"), await rig.admit("well.mp4")
    assert sick is not None
    assert well is not None
    put = rig.store.put_part

    async def refuse(key: str, *rest: Any, **named: Any) -> str:
        if key == sick.record.stream.key:
            raise AccessDeniedError("not this one")
        return await put(key, *rest, **named)

    rig.store.put_part = refuse  # type: ignore[method-assign]
    trying = asyncio.create_task(rig.look(sick))
    async with asyncio.timeout(20):
        while not rig.store.calls["begin_upload"]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert await rig.finish(well) is End.STORED
    assert rig.store.data(well.record.stream.key) == data
    assert not trying.done()
    await cancel_all([trying])
    sick.source.close()
    well.source.close()
