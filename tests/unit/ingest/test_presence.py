"""A file that goes away ends what is done for it, wherever that waits."""

import asyncio
import os
from dataclasses import replace
from typing import Any

import pytest
from tests.support.ingest_world import PART, World, bytes_of, open_growing

from cefmp4.errors import AccessDeniedError, TransientError
from cefmp4.ingest.admitted import Admitted
from cefmp4.ingest.fate import End
from cefmp4.ingest.processor import HOLES_PATIENCE_S
from cefmp4.ingest.rules import full_parts
from cefmp4.model.part import GIB
from cefmp4.model.stream import StreamState


@pytest.mark.parametrize("is_finished", [False, True])
async def test_a_part_on_a_wire_that_hangs_is_cut_off(world: World, is_finished: bool) -> None:
    processor = await open_growing(world, bytes_of(4 * PART))
    if not is_finished:
        world.write(bytes_of(4 * PART), at=4 * PART)
    with world.store.pause("put_part") as gate:
        processor.observe(processor.source.look())
        world.clock.pass_by(3.0 if is_finished else 0.0)
        step = asyncio.create_task(processor._guarded_step())
        async with asyncio.timeout(10):
            await gate.reached.wait()
            os.unlink(world.folder / "r.mp4")
            world.clock.pass_by(1.0)
            processor.observe(processor.source.look())
            world.clock.pass_by(60.0)
            await step
        calls = world.store.calls["put_part"]
        while processor.end is None:
            await world.look(processor)
    assert processor.end is End.FAILED
    assert "missing" in processor.record.stream.reason
    assert world.store.open_uploads == {}
    assert world.store.calls["put_part"] == calls


async def test_a_store_that_is_away_keeps_no_file_that_is_gone(world: World) -> None:
    processor = await open_growing(world, bytes_of(4 * PART))
    world.store.fail("put_part", TransientError("away"), times=1_000_000)
    world.write(bytes_of(4 * PART), at=4 * PART)
    processor.observe(processor.source.look())
    step = asyncio.create_task(processor._guarded_step())
    await asyncio.sleep(0.05)
    assert not step.done()
    os.unlink(world.folder / "r.mp4")
    processor.observe(processor.source.look())
    world.clock.pass_by(60.0)
    async with asyncio.timeout(10):
        await step
    await world.look(processor)
    assert processor.end is End.FAILED


async def test_no_part_begins_once_the_name_is_gone(world: World) -> None:
    processor = await open_growing(world, bytes_of(4 * PART))
    before = world.store.calls["put_part"]
    world.write(bytes_of(4 * PART), at=4 * PART)
    os.unlink(world.folder / "r.mp4")
    processor.source.look()  # a look that the stream was not told of yet
    await processor._guarded_step()
    assert world.store.calls["put_part"] == before


async def test_a_rename_that_comes_late_stops_nothing(world: World) -> None:
    data = bytes_of(4 * PART)
    processor = await open_growing(world, data)
    os.rename(world.folder / "r.mp4", world.folder / "s.mp4")
    await world.look(processor)
    processor.renamed("s.mp4")
    assert await world.finish(processor) is End.STORED
    assert world.store.data(processor.record.stream.key) == data


async def test_what_was_being_proven_waits_for_its_data_too(world: World) -> None:
    world.write(b"")
    os.truncate(world.folder / "r.mp4", 15 * 1024 * GIB)
    processor = await world.admit()
    assert processor is not None
    await processor.record.move_to(StreamState.FINALIZING)  # and then there was a crash
    processor._file._trusts_ctime = True  # as on a local disk
    sample = processor.source.look()
    long_ago = int((world.clock() - 60.0) * 1e9)
    processor.observe(replace(sample, stamp=replace(sample.stamp, ctime_ns=long_ago)))
    await processor._guarded_step()
    assert processor.end is None
    assert processor.record.stream.state is StreamState.STALE


async def test_what_is_mostly_holes_waits_and_fails_with_a_reason(world: World) -> None:
    world.write(b"")
    os.truncate(world.folder / "r.mp4", 15 * 1024 * GIB)
    processor = await world.admit()
    assert processor is not None
    for _ in range(3):
        await world.look(processor)
        world.clock.pass_by(3.0)
    stream = processor.record.stream
    assert (processor.end, stream.state) == (None, StreamState.STALE)
    assert "mostly holes" in stream.reason
    world.clock.pass_by(HOLES_PATIENCE_S)
    await world.look(processor)
    assert processor.end is End.FAILED
    assert "HOLES_LIMIT_BYTES" in stream.reason
    assert world.store.calls["put_part"] == world.store.calls["begin_upload"] == 0
    world.index.add(stream)
    await processor.record.release()
    assert await world.admit() is None, "it is looked at again although nothing changed"
    os.truncate(world.folder / "r.mp4", 0)
    world.write(data := bytes_of(2 * PART))
    again = await world.stored()
    assert world.store.data(again.record.stream.key) == data


async def test_what_gets_its_data_while_it_waits_is_stored(world: World) -> None:
    world.write(b"")
    os.truncate(world.folder / "r.mp4", 15 * 1024 * GIB)
    processor = await world.admit()
    assert processor is not None
    await world.look(processor)
    world.clock.pass_by(3.0)
    await world.look(processor)
    assert processor.record.stream.state is StreamState.STALE
    data = bytes_of(3 * PART)
    os.truncate(world.folder / "r.mp4", len(data))
    world.write(data)
    assert await world.finish(processor) is End.STORED
    assert world.store.data(processor.record.stream.key) == data
    assert processor.record.stream.reason == ""


async def test_a_stream_that_the_store_refuses_holds_no_slot(world: World) -> None:
    """Its name may have been chosen for that."""
    uploader = world.uploader  # its slots are shared
    world.write(bytes_of(6 * PART), name="sick.mp4")
    world.write(bytes_of(6 * PART), name="well.mp4")
    sick, well = (
        await world.admission().admit("sick.mp4"),
        await world.admission().admit("well.mp4"),
    )
    assert sick is not None
    assert well is not None
    put = world.store.put_part

    async def refuse(key: str, *rest: Any, **named: Any) -> str:
        if key == sick.record.stream.key:
            raise AccessDeniedError("not this one")
        return await put(key, *rest, **named)

    world.store.put_part = refuse  # type: ignore[method-assign]

    async def send(admitted: Admitted) -> int:
        ready = full_parts(admitted.record.stream.plan, 6 * PART, PART, {})
        return await uploader.send_full_parts(admitted, list(ready), lag=PART)

    trying = asyncio.create_task(send(sick))
    async with asyncio.timeout(20):
        while not world.store.calls["begin_upload"]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert await send(well) == 4
    assert not trying.done()
    trying.cancel()
    await asyncio.gather(trying, return_exceptions=True)
    sick.source.close()
    well.source.close()
