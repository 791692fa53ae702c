"""One stream, step by step, on stores in memory and a real file."""

import asyncio
import os
from dataclasses import replace

import pytest
from tests.support.rig import PART, Rig, bytes_of, open_growing

from cefmp4 import metrics
from cefmp4.errors import ProofFailedError, ServerUnreachableError, UploadGoneError
from cefmp4.ingest.fate import End
from cefmp4.ingest.record import StreamRecord
from cefmp4.model.event import EventKind
from cefmp4.model.part import MIB
from cefmp4.model.stream import StreamState
from cefmp4.recording.digests import crc_of, multipart_etag

pytestmark = pytest.mark.leaps

LAG = PART  # one part, which is more than the least lag


async def test_parts_leave_behind_the_writer_and_the_head_is_held(rig: Rig) -> None:
    processor = await open_growing(rig, bytes_of(4 * PART))
    assert sorted(processor.record.parts) == [2, 3]
    rig.write(bytes_of(PART), at=4 * PART)
    await rig.look(processor)
    assert sorted(processor.record.parts) == [2, 3, 4]


async def test_the_object_is_the_file(rig: Rig) -> None:
    data = bytes_of(3 * PART + 12345)
    processor = await open_growing(rig, data)
    assert await rig.finish(processor) is End.STORED
    stream = processor.record.stream
    assert rig.store.data(stream.key) == data
    assert stream.etag == multipart_etag(
        processor.record.parts[number].etag for number in sorted(processor.record.parts)
    )
    assert rig.store.open_uploads == {}


@pytest.mark.parametrize("at", [0, PART + 7, 2 * PART])
async def test_bytes_patched_after_they_were_sent_are_sent_again(rig: Rig, at: int) -> None:
    data = bytearray(bytes_of(5 * PART))
    processor = await open_growing(rig, bytes(data))
    sent = dict(processor.record.parts)
    data[at : at + 4] = b"moov"
    rig.write(b"moov", at=at)
    assert await rig.finish(processor) is End.STORED
    assert rig.store.data(processor.record.stream.key) == bytes(data)
    kept = [n for n, part in sent.items() if processor.record.parts[n].etag == part.etag]
    assert len(kept) == len(sent) - (1 if at else 0)


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1])
async def test_small_files(rig: Rig, size: int) -> None:
    data = bytes_of(size)
    rig.write(data)
    processor = await rig.stored()
    assert rig.store.data(processor.record.stream.key) == data
    assert processor.record.stream.size == size


async def test_a_writer_that_pauses_is_not_finished(rig: Rig) -> None:
    processor = await open_growing(rig, bytes_of(3 * PART))
    with (rig.folder / "r.mp4").open("r+b"):
        rig.clock.pass_by(20.0)
        await rig.look(processor)
        assert processor.end is None
        rig.clock.pass_by(11.0)
        await rig.look(processor)
    assert processor.end is End.STORED


async def test_a_writer_that_comes_back_during_the_proof_voids_it(rig: Rig) -> None:
    data = bytes_of(3 * PART)
    processor = await open_growing(rig, data)
    rig.clock.pass_by(3.0)
    more = bytes_of(PART)
    with rig.store.pause("put_part") as gate:
        step = rig.step(processor)
        proving = asyncio.ensure_future(step)
        await gate.reached.wait()
        # In a thread: the open waits until our loop has let go of the write guard.
        await asyncio.to_thread(rig.write, more, len(data))
        gate.release()
        await proving
    assert processor.end is None
    assert processor.record.stream.state is StreamState.UPLOADING
    assert await rig.finish(processor) is End.STORED
    assert rig.store.data(processor.record.stream.key) == data + more


async def test_a_truncated_file_fails_and_its_upload_is_aborted(rig: Rig) -> None:
    processor = await open_growing(rig, bytes_of(5 * PART))
    os.truncate(rig.folder / "r.mp4", PART // 2)
    assert await rig.finish(processor) is End.TRUNCATED
    assert processor.record.stream.state is StreamState.FAILED
    assert "truncated" in processor.record.stream.reason
    assert rig.store.open_uploads == {}
    assert rig.store.keys == []


async def test_what_is_left_of_a_truncated_file_is_stored_as_a_stream_of_its_own(
    rig: Rig,
) -> None:
    processor = await open_growing(rig, bytes_of(5 * PART))
    os.truncate(rig.folder / "r.mp4", PART // 2)
    await rig.finish(processor)
    await processor.record.release()
    following = await rig.stored()
    left = (rig.folder / "r.mp4").read_bytes()
    assert rig.store.data(following.record.stream.key) == left


async def test_a_missing_file_fails_and_its_upload_is_aborted(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[str] = []
    monkeypatch.setattr(metrics, "count_failure", lambda what, *_: counted.append(what))
    processor = await open_growing(rig, bytes_of(5 * PART))
    (rig.folder / "r.mp4").unlink()
    assert await rig.finish(processor) is End.FAILED
    assert counted == ["missing"]
    assert "missing" in processor.record.stream.reason
    assert rig.store.open_uploads == {}


async def test_a_file_that_vanishes_before_anything_was_sent_is_dropped(rig: Rig) -> None:
    rig.write(b"")
    processor = await rig.admit()
    assert processor is not None
    (rig.folder / "r.mp4").unlink()
    assert await rig.finish(processor) is End.DROPPED


async def test_a_rename_keeps_the_stream(rig: Rig) -> None:
    data = bytes_of(4 * PART)
    processor = await open_growing(rig, data)
    (rig.folder / "r.mp4").rename(rig.folder / "final.mp4")
    processor.renamed("final.mp4")
    assert await rig.finish(processor) is End.STORED
    assert rig.store.data(processor.record.stream.key) == data
    assert (await rig.checkpoints.load_stream_at("", "final.mp4")) is not None
    assert (await rig.checkpoints.load_stream_at("", "r.mp4")) is None


async def test_a_close_after_the_proof_is_not_the_one_of_this_generation(rig: Rig) -> None:
    rig.write(bytes_of(2 * PART))
    processor = await rig.admit()
    assert processor is not None
    processor.notify(EventKind.CLOSE)
    closed_at = rig.clock()
    assert await rig.finish(processor) is End.STORED
    processor.notify(EventKind.CLOSE)
    assert processor.record.stream.closed_at == closed_at


async def test_a_finished_file_is_not_taken_again(rig: Rig) -> None:
    rig.write(bytes_of(PART))
    await rig.stored()
    assert await rig.admit() is None


async def test_new_dates_alone_store_nothing(rig: Rig) -> None:
    rig.write(bytes_of(3 * PART))
    first = await rig.stored()
    os.utime(rig.folder / "r.mp4", (1, 1))
    again = await rig.admit()
    assert again is not None
    assert await rig.finish(again) is End.UNCHANGED
    assert rig.store.keys == [first.record.stream.key]
    assert rig.store.open_uploads == {}


async def test_a_stream_that_is_over_is_not_won_back(rig: Rig) -> None:
    """Its task is still busy with the former generation, whose record goes on."""
    rig.write(bytes_of(PART))
    await rig.stored()
    os.utime(rig.folder / "r.mp4", (1, 1))
    again = await rig.admit()
    assert again is not None
    assert await rig.finish(again) is End.UNCHANGED
    lost: list[StreamRecord] = []
    await again.record.release()
    await rig.checkpoints.forget(again.record.stream)
    await rig.service().claims.renew([again.record], on_lost=lost.append)
    assert await rig.checkpoints.load_stream(again.record.stream.id) is None
    assert lost == []


async def test_a_changed_file_is_a_new_generation_that_copies_what_is_the_same(
    rig: Rig,
) -> None:
    data = bytearray(bytes_of(4 * PART))
    rig.write(bytes(data))
    first = await rig.stored()
    sent_before = rig.store.calls["put_part"]
    data[2 * PART : 2 * PART + 3] = b"new"
    rig.write(b"new", at=2 * PART)
    second = await rig.stored()
    stream = second.record.stream
    assert (stream.generation, stream.previous_id) == (2, first.record.stream.id)
    assert rig.store.data(stream.key) == bytes(data)
    assert rig.store.data(first.record.stream.key) != bytes(data)
    assert rig.store.calls["put_part"] - sent_before == 1
    assert rig.store.calls["copy_part"] == 3


async def test_an_upload_that_a_lifecycle_rule_ate_is_begun_again(rig: Rig) -> None:
    data = bytes_of(4 * PART)
    processor = await open_growing(rig, data)
    await rig.store.abort_upload(processor.record.stream.key, processor.record.stream.upload_id)
    assert await rig.finish(processor) is End.STORED
    assert rig.store.data(processor.record.stream.key) == data


async def test_a_failed_proof_is_never_completed(rig: Rig) -> None:
    data = bytes_of(4 * PART)
    processor = await open_growing(rig, data)
    rig.store.fail("complete_upload", ProofFailedError("other bytes"), times=2)
    assert await rig.finish(processor) is End.STORED
    assert rig.store.calls["complete_upload"] == 3
    assert rig.store.data(processor.record.stream.key) == data


async def test_a_sick_store_and_redis_only_delay(rig: Rig) -> None:
    data = bytes_of(4 * PART)
    for operation in ("begin_upload", "put_part", "complete_upload"):
        rig.store.fail(operation, ServerUnreachableError("away"), times=9)
    processor = await open_growing(rig, data)
    rig.checkpoints.fail("save", ServerUnreachableError("away"), times=9)
    assert await rig.finish(processor) is End.STORED
    assert rig.store.data(processor.record.stream.key) == data


async def test_a_lost_answer_to_completion_is_understood(rig: Rig) -> None:
    data = bytes_of(3 * PART)
    processor = await open_growing(rig, data)
    rig.store.lose_answer("complete_upload", ServerUnreachableError("reset"))
    assert await rig.finish(processor) is End.STORED
    assert rig.store.data(processor.record.stream.key) == data


async def test_another_owner_fences_us(rig: Rig) -> None:
    processor = await open_growing(rig, bytes_of(3 * PART))
    lease = processor.record.lease
    await rig.checkpoints.release(lease)
    taken = await rig.checkpoints.claim(processor.record.stream, "somebody else")
    assert taken is not None
    rig.write(bytes_of(PART), at=3 * PART)
    assert await rig.finish(processor) is End.FENCED
    assert rig.store.keys == []


async def test_a_preallocated_file_is_not_sent_before_its_bytes_are_written(rig: Rig) -> None:
    path = rig.folder / "r.mp4"
    with path.open("wb") as file:
        file.truncate(6 * PART)
        processor = await rig.admit()
        assert processor is not None
        await rig.look(processor)
        assert processor.record.parts == {}
        file.write(bytes_of(4 * PART + MIB))
        file.flush()
        await rig.look(processor)
        assert sorted(processor.record.parts) == [2, 3]


async def test_emptied_checkpoints_are_written_again(rig: Rig) -> None:
    data = bytes_of(4 * PART)
    processor = await open_growing(rig, data)
    rig.checkpoints.wipe()
    assert await rig.finish(processor) is End.STORED
    assert rig.store.data(processor.record.stream.key) == data
    known = await rig.checkpoints.load_stream_at("", "r.mp4")
    assert known is not None
    assert known.state is StreamState.STORED
    assert len(await rig.checkpoints.load_parts(known.id)) == 4


async def test_a_restart_sends_nothing_again_that_the_store_has(rig: Rig) -> None:
    data = bytes_of(6 * PART)
    before = await open_growing(rig, data)
    sent = rig.store.calls["put_part"]
    assert sent == 4
    again = await rig.admit()  # the same owner: as after a crash
    assert again is not None
    assert again.record.stream.id == before.record.stream.id
    assert await rig.finish(again) is End.STORED
    assert rig.store.data(again.record.stream.key) == data
    assert rig.store.calls["put_part"] == 6


async def test_etags_that_only_redis_claims_are_not_believed(rig: Rig) -> None:
    data = bytes_of(4 * PART)
    record = (await open_growing(rig, data)).record
    parts = [replace(part, etag="no MD5") for part in record.parts.values()]
    await rig.checkpoints.save(record.stream, record.lease, parts=parts)
    await rig.store.abort_upload(record.stream.key, record.stream.upload_id)
    await rig.store.put_object(
        record.stream.key, b"another", content_type="", metadata={}, crc64=crc_of(b"another")
    )
    again = await rig.admit()
    assert again is not None
    assert again.record.parts == {}


async def test_a_listing_with_a_hole_is_no_reason_to_believe_it_dense(rig: Rig) -> None:
    data = bytes_of(6 * PART)
    before = await open_growing(rig, data)
    lost = before.record.stream.upload_id
    del rig.store._uploads[lost].parts[3]
    again = await rig.admit()
    assert again is not None
    assert sorted(again.record.parts) == [2, 4, 5]
    assert await rig.finish(again) is End.STORED
    assert rig.store.data(again.record.stream.key) == data


async def test_a_part_that_only_the_store_knows_is_adopted_after_comparison(rig: Rig) -> None:
    data = bytes_of(6 * PART)
    before = await open_growing(rig, data)
    await before.record.drop_parts([3, 4])
    rig.store._uploads[before.record.stream.upload_id].parts[4] = bytes_of(PART)
    again = await rig.admit()
    assert again is not None
    assert sorted(again.record.parts) == [2, 3, 5]


async def test_a_crash_between_completion_and_checkpoint(rig: Rig) -> None:
    data = bytes_of(3 * PART)
    processor = await open_growing(rig, data)
    stream = processor.record.stream
    saved = await rig.checkpoints.load_stream(stream.id)
    assert await rig.finish(processor) is End.STORED
    assert saved is not None
    parts = await rig.checkpoints.load_parts(stream.id)
    rig.checkpoints._streams[stream.id] = replace(
        saved, upload_id=saved.upload_id or "gone", state=StreamState.FINALIZING
    )
    assert len(parts) == 3
    again = await rig.admit()
    assert again is not None
    sends = rig.store.calls["put_part"]
    assert await rig.finish(again) is End.STORED
    assert rig.store.calls["put_part"] == sends
    assert rig.store.keys == [stream.key]


async def test_an_upload_gone_error_reaches_no_one_else(rig: Rig) -> None:
    processor = await open_growing(rig, bytes_of(4 * PART))
    rig.store.fail("put_part", UploadGoneError("gone"))
    rig.write(bytes_of(PART), at=4 * PART)
    await rig.look(processor)
    assert processor.record.parts == {}
    assert processor.end is None
