"""One stream, step by step, on stores in memory and a real file."""

import asyncio
import os
from dataclasses import replace

import pytest
from tests.support.ingest_world import PART, World, bytes_of, open_growing

from cefmp4 import metrics
from cefmp4.errors import ProofFailedError, ServerUnreachableError, UploadGoneError
from cefmp4.ingest.fate import End
from cefmp4.ingest.ownership import Ownership
from cefmp4.ingest.record import StreamRecord
from cefmp4.model.event import EventKind
from cefmp4.model.part import MIB
from cefmp4.model.stream import StreamState
from cefmp4.recording.digests import crc_of, multipart_etag

LAG = PART  # one part, which is more than the least lag


async def test_parts_leave_behind_the_writer_and_the_head_is_held(world: World) -> None:
    processor = await open_growing(world, bytes_of(4 * PART))
    assert sorted(processor.record.parts) == [2, 3]
    world.write(bytes_of(PART), at=4 * PART)
    await world.look(processor)
    assert sorted(processor.record.parts) == [2, 3, 4]


async def test_the_object_is_the_file(world: World) -> None:
    data = bytes_of(3 * PART + 12345)
    processor = await open_growing(world, data)
    assert await world.finish(processor) is End.STORED
    stream = processor.record.stream
    assert world.store.data(stream.key) == data
    assert stream.etag == multipart_etag(
        processor.record.parts[number].etag for number in sorted(processor.record.parts)
    )
    assert world.store.open_uploads == {}


@pytest.mark.parametrize("at", [0, PART + 7, 2 * PART])
async def test_bytes_patched_after_they_were_sent_are_sent_again(world: World, at: int) -> None:
    data = bytearray(bytes_of(5 * PART))
    processor = await open_growing(world, bytes(data))
    sent = dict(processor.record.parts)
    data[at : at + 4] = b"moov"
    world.write(b"moov", at=at)
    assert await world.finish(processor) is End.STORED
    assert world.store.data(processor.record.stream.key) == bytes(data)
    kept = [n for n, part in sent.items() if processor.record.parts[n].etag == part.etag]
    assert len(kept) == len(sent) - (1 if at else 0)


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1])
async def test_small_files(world: World, size: int) -> None:
    data = bytes_of(size)
    world.write(data)
    processor = await world.stored()
    assert world.store.data(processor.record.stream.key) == data
    assert processor.record.stream.size == size


async def test_a_writer_that_pauses_is_not_finished(world: World) -> None:
    processor = await open_growing(world, bytes_of(3 * PART))
    with (world.folder / "r.mp4").open("r+b"):
        world.clock.pass_by(20.0)
        await world.look(processor)
        assert processor.end is None
        world.clock.pass_by(11.0)
        await world.look(processor)
    assert processor.end is End.STORED


async def test_a_writer_that_comes_back_during_the_proof_voids_it(world: World) -> None:
    data = bytes_of(3 * PART)
    processor = await open_growing(world, data)
    world.clock.pass_by(3.0)
    more = bytes_of(PART)
    with world.store.pause("put_part") as gate:
        step = processor._guarded_step()
        proving = asyncio.ensure_future(step)
        await gate.reached.wait()
        # In a thread: the open waits until our loop has let go of the write guard.
        await asyncio.to_thread(world.write, more, len(data))
        gate.release()
        await proving
    assert processor.end is None
    assert processor.record.stream.state is StreamState.UPLOADING
    assert await world.finish(processor) is End.STORED
    assert world.store.data(processor.record.stream.key) == data + more


async def test_a_truncated_file_fails_and_its_upload_is_aborted(world: World) -> None:
    processor = await open_growing(world, bytes_of(5 * PART))
    os.truncate(world.folder / "r.mp4", PART // 2)
    assert await world.finish(processor) is End.TRUNCATED
    assert processor.record.stream.state is StreamState.FAILED
    assert "truncated" in processor.record.stream.reason
    assert world.store.open_uploads == {}
    assert world.store.keys == []


async def test_what_is_left_of_a_truncated_file_is_stored_as_a_stream_of_its_own(
    world: World,
) -> None:
    processor = await open_growing(world, bytes_of(5 * PART))
    os.truncate(world.folder / "r.mp4", PART // 2)
    await world.finish(processor)
    await processor.record.release()
    following = await world.stored()
    left = (world.folder / "r.mp4").read_bytes()
    assert world.store.data(following.record.stream.key) == left


async def test_a_missing_file_fails_and_its_upload_is_aborted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[str] = []
    monkeypatch.setattr(metrics, "count_failure", lambda what, *_: counted.append(what))
    processor = await open_growing(world, bytes_of(5 * PART))
    (world.folder / "r.mp4").unlink()
    assert await world.finish(processor) is End.FAILED
    assert counted == ["missing"]
    assert "missing" in processor.record.stream.reason
    assert world.store.open_uploads == {}


async def test_a_file_that_vanishes_before_anything_was_sent_is_dropped(world: World) -> None:
    world.write(b"")
    processor = await world.admit()
    assert processor is not None
    (world.folder / "r.mp4").unlink()
    assert await world.finish(processor) is End.DROPPED


async def test_a_rename_keeps_the_stream(world: World) -> None:
    data = bytes_of(4 * PART)
    processor = await open_growing(world, data)
    (world.folder / "r.mp4").rename(world.folder / "final.mp4")
    processor.renamed("final.mp4")
    assert await world.finish(processor) is End.STORED
    assert world.store.data(processor.record.stream.key) == data
    assert (await world.checkpoints.load_stream_at("", "final.mp4")) is not None
    assert (await world.checkpoints.load_stream_at("", "r.mp4")) is None


async def test_a_close_after_the_proof_is_not_the_one_of_this_generation(world: World) -> None:
    world.write(bytes_of(2 * PART))
    processor = await world.admit()
    assert processor is not None
    processor.notify(EventKind.CLOSE)
    closed_at = world.clock.now
    assert await world.finish(processor) is End.STORED
    processor.notify(EventKind.CLOSE)
    assert processor.record.stream.closed_at == closed_at


async def test_a_finished_file_is_not_taken_again(world: World) -> None:
    world.write(bytes_of(PART))
    await world.stored()
    assert await world.admit() is None


async def test_new_dates_alone_store_nothing(world: World) -> None:
    world.write(bytes_of(3 * PART))
    first = await world.stored()
    os.utime(world.folder / "r.mp4", (1, 1))
    again = await world.admit()
    assert again is not None
    assert await world.finish(again) is End.UNCHANGED
    assert world.store.keys == [first.record.stream.key]
    assert world.store.open_uploads == {}


async def test_a_stream_that_is_over_is_not_won_back(world: World) -> None:
    """Its task is still busy with the former generation, whose record goes on."""
    world.write(bytes_of(PART))
    await world.stored()
    os.utime(world.folder / "r.mp4", (1, 1))
    again = await world.admit()
    assert again is not None
    assert await world.finish(again) is End.UNCHANGED
    lost: list[StreamRecord] = []
    ownership = Ownership(
        checkpoints=world.checkpoints,
        records=lambda: [again.record],
        on_lost=lost.append,
        on_memory_lost=lambda: None,
        is_restoring=lambda: False,
        lease_seconds=5,
    )
    await again.record.release()
    await world.checkpoints.forget(again.record.stream)
    await ownership.step()
    assert await world.checkpoints.load_stream(again.record.stream.id) is None
    assert lost == []


async def test_a_changed_file_is_a_new_generation_that_copies_what_is_the_same(
    world: World,
) -> None:
    data = bytearray(bytes_of(4 * PART))
    world.write(bytes(data))
    first = await world.stored()
    sent_before = world.store.calls["put_part"]
    data[2 * PART : 2 * PART + 3] = b"new"
    world.write(b"new", at=2 * PART)
    second = await world.stored()
    stream = second.record.stream
    assert (stream.generation, stream.previous_id) == (2, first.record.stream.id)
    assert world.store.data(stream.key) == bytes(data)
    assert world.store.data(first.record.stream.key) != bytes(data)
    assert world.store.calls["put_part"] - sent_before == 1
    assert world.store.calls["copy_part"] == 3


async def test_an_upload_that_a_lifecycle_rule_ate_is_begun_again(world: World) -> None:
    data = bytes_of(4 * PART)
    processor = await open_growing(world, data)
    await world.store.abort_upload(processor.record.stream.key, processor.record.stream.upload_id)
    assert await world.finish(processor) is End.STORED
    assert world.store.data(processor.record.stream.key) == data


async def test_a_failed_proof_is_never_completed(world: World) -> None:
    data = bytes_of(4 * PART)
    processor = await open_growing(world, data)
    world.store.fail("complete_upload", ProofFailedError("other bytes"), times=2)
    assert await world.finish(processor) is End.STORED
    assert world.store.calls["complete_upload"] == 3
    assert world.store.data(processor.record.stream.key) == data


async def test_a_sick_store_and_redis_only_delay(world: World) -> None:
    data = bytes_of(4 * PART)
    for operation in ("begin_upload", "put_part", "complete_upload"):
        world.store.fail(operation, ServerUnreachableError("away"), times=9)
    processor = await open_growing(world, data)
    world.checkpoints.fail("save", ServerUnreachableError("away"), times=9)
    assert await world.finish(processor) is End.STORED
    assert world.store.data(processor.record.stream.key) == data


async def test_a_lost_answer_to_completion_is_understood(world: World) -> None:
    data = bytes_of(3 * PART)
    processor = await open_growing(world, data)
    world.store.lose_answer("complete_upload", ServerUnreachableError("reset"))
    assert await world.finish(processor) is End.STORED
    assert world.store.data(processor.record.stream.key) == data


async def test_another_owner_fences_us(world: World) -> None:
    processor = await open_growing(world, bytes_of(3 * PART))
    lease = processor.record.lease
    await world.checkpoints.release(lease)
    taken = await world.checkpoints.claim(processor.record.stream, "somebody else")
    assert taken is not None
    world.write(bytes_of(PART), at=3 * PART)
    assert await world.finish(processor) is End.FENCED
    assert world.store.keys == []


async def test_a_preallocated_file_is_not_sent_before_its_bytes_are_written(world: World) -> None:
    path = world.folder / "r.mp4"
    with path.open("wb") as file:
        file.truncate(6 * PART)
        processor = await world.admit()
        assert processor is not None
        await world.look(processor)
        assert processor.record.parts == {}
        file.write(bytes_of(4 * PART + MIB))
        file.flush()
        await world.look(processor)
        assert sorted(processor.record.parts) == [2, 3]


async def test_emptied_checkpoints_are_written_again(world: World) -> None:
    data = bytes_of(4 * PART)
    processor = await open_growing(world, data)
    world.checkpoints.wipe()
    assert await world.finish(processor) is End.STORED
    assert world.store.data(processor.record.stream.key) == data
    known = await world.checkpoints.load_stream_at("", "r.mp4")
    assert known is not None
    assert known.state is StreamState.STORED
    assert len(await world.checkpoints.load_parts(known.id)) == 4


async def test_a_restart_sends_nothing_again_that_the_store_has(world: World) -> None:
    data = bytes_of(6 * PART)
    before = await open_growing(world, data)
    sent = world.store.calls["put_part"]
    assert sent == 4
    again = await world.admit()  # the same owner: as after a crash
    assert again is not None
    assert again.record.stream.id == before.record.stream.id
    assert await world.finish(again) is End.STORED
    assert world.store.data(again.record.stream.key) == data
    assert world.store.calls["put_part"] == 6


async def test_etags_that_only_redis_claims_are_not_believed(world: World) -> None:
    data = bytes_of(4 * PART)
    record = (await open_growing(world, data)).record
    parts = [replace(part, etag="no MD5") for part in record.parts.values()]
    await world.checkpoints.save(record.stream, record.lease, parts=parts)
    await world.store.abort_upload(record.stream.key, record.stream.upload_id)
    await world.store.put_object(
        record.stream.key, b"another", content_type="", metadata={}, crc64=crc_of(b"another")
    )
    again = await world.admit()
    assert again is not None
    assert again.record.parts == {}


async def test_a_listing_with_a_hole_is_no_reason_to_believe_it_dense(world: World) -> None:
    data = bytes_of(6 * PART)
    before = await open_growing(world, data)
    lost = before.record.stream.upload_id
    del world.store._uploads[lost].parts[3]
    again = await world.admit()
    assert again is not None
    assert sorted(again.record.parts) == [2, 4, 5]
    assert await world.finish(again) is End.STORED
    assert world.store.data(again.record.stream.key) == data


async def test_a_part_that_only_the_store_knows_is_adopted_after_comparison(world: World) -> None:
    data = bytes_of(6 * PART)
    before = await open_growing(world, data)
    await before.record.drop_parts([3, 4])
    world.store._uploads[before.record.stream.upload_id].parts[4] = bytes_of(PART)
    again = await world.admit()
    assert again is not None
    assert sorted(again.record.parts) == [2, 3, 5]


async def test_a_crash_between_completion_and_checkpoint(world: World) -> None:
    data = bytes_of(3 * PART)
    processor = await open_growing(world, data)
    stream = processor.record.stream
    saved = await world.checkpoints.load_stream(stream.id)
    assert await world.finish(processor) is End.STORED
    assert saved is not None
    parts = await world.checkpoints.load_parts(stream.id)
    world.checkpoints._streams[stream.id] = replace(
        saved, upload_id=saved.upload_id or "gone", state=StreamState.FINALIZING
    )
    assert len(parts) == 3
    again = await world.admit()
    assert again is not None
    sends = world.store.calls["put_part"]
    assert await world.finish(again) is End.STORED
    assert world.store.calls["put_part"] == sends
    assert world.store.keys == [stream.key]


async def test_an_upload_gone_error_reaches_no_one_else(world: World) -> None:
    processor = await open_growing(world, bytes_of(4 * PART))
    world.store.fail("put_part", UploadGoneError("gone"))
    world.write(bytes_of(PART), at=4 * PART)
    await world.look(processor)
    assert processor.record.parts == {}
    assert processor.end is None
