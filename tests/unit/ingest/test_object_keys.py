"""Two recordings that would have one key: both are stored, each under its own."""

import os

import pytest
from awscrt.checksums import crc64nvme
from tests.support.rig import PART, Rig

from cefmp4 import metrics
from cefmp4.errors import ServerUnreachableError
from cefmp4.ingest.fate import End
from cefmp4.ingest.processor import StreamProcessor
from cefmp4.model.names import META_STREAM_ID, KeyConflict, next_key
from cefmp4.model.stream import StreamState

pytestmark = pytest.mark.leaps


@pytest.fixture(params=[PART // 2, 3 * PART + 99], ids=["single", "parts"])
def size(request: pytest.FixtureRequest) -> int:
    found: int = request.param
    return found


def conflicts(outcome: str) -> float:
    count: float = metrics.key_conflicts.labels(outcome)._value.get()
    return count


async def begun(rig: Rig, name: str, data: bytes) -> StreamProcessor:
    (rig.folder / name).parent.mkdir(exist_ok=True)
    rig.write(data, name=name)
    processor = await rig.admit(name)
    assert processor is not None
    await rig.look(processor)
    return processor


def assert_stored(rig: Rig, processor: StreamProcessor, data: bytes) -> None:
    stream = processor.record.stream
    assert stream.is_proven
    assert rig.store.data(stream.key) == data


async def test_two_growing_files_of_one_name(rig: Rig, size: int) -> None:
    rig.set(s3_key_template="{filename}")
    first, second = os.urandom(size), os.urandom(size)
    one = await begun(rig, "a/r.mp4", first)
    other = await begun(rig, "b/r.mp4", second)
    assert await rig.finish(other) is End.STORED
    assert await rig.finish(one) is End.STORED
    assert_stored(rig, one, first)
    assert_stored(rig, other, second)
    assert one.record.stream.key == "r.mp4"
    assert other.record.stream.key == f"r~{other.record.stream.id}.mp4"
    assert len(rig.store.keys) == 2


async def test_the_next_generation_leaves_the_former_its_object(rig: Rig, size: int) -> None:
    rig.set(s3_key_template="{filename}")
    first, second = os.urandom(size), os.urandom(size)
    rig.write(first)
    one = await rig.stored()
    rig.write(second)
    other = await rig.stored()
    assert other.record.stream.generation == 2
    assert_stored(rig, one, first)
    assert_stored(rig, other, second)


async def test_what_others_put_there_meanwhile_stays(rig: Rig, size: int) -> None:
    """No reservation tells of it: only the store does, at completion."""
    rig.set(s3_key_template="{filename}")
    data, before = os.urandom(size), conflicts("suffixed")
    processor = await begun(rig, "r.mp4", data)
    for taken in ("r.mp4", next_key("r.mp4", processor.record.stream.id)):
        await rig.store.put_object(
            taken, b"another's", content_type="", metadata={}, crc64=crc64nvme(b"another's")
        )
    assert await rig.finish(processor) is End.STORED
    assert rig.store.data("r.mp4") == b"another's"
    assert_stored(rig, processor, data)
    assert rig.store.open_uploads == {}
    assert conflicts("suffixed") == before + 2


async def test_a_document_that_lies_there_makes_the_key_taken(rig: Rig) -> None:
    """It may be a recording of an older version, whose name ends like that."""
    rig.set(s3_key_template="{filename}")
    await rig.store.put_object(
        "r.mp4.metadata.json", b"{}", content_type="", metadata={}, crc64=crc64nvme(b"{}")
    )
    processor = await begun(rig, "r.mp4", b"data")
    assert processor.record.stream.key == f"r~{processor.record.stream.id}.mp4"


async def test_a_reservation_lost_with_the_memory_of_redis(rig: Rig, size: int) -> None:
    rig.set(s3_key_template="{filename}")
    first, second = os.urandom(size), os.urandom(size)
    one = await begun(rig, "a/r.mp4", first)
    rig.checkpoints.wipe()
    await rig.checkpoints.mark_used()
    other = await begun(rig, "b/r.mp4", second)  # nobody told it of the first
    assert one.record.stream.key == other.record.stream.key
    assert await rig.finish(one) is End.STORED
    assert await rig.finish(other) is End.STORED
    assert_stored(rig, one, first)
    assert_stored(rig, other, second)
    assert rig.store.open_uploads == {}


@pytest.mark.parametrize("operation", ["put_object", "complete_upload"])
async def test_a_lost_answer_is_no_conflict(rig: Rig, operation: str) -> None:
    rig.set(s3_key_template="{filename}")
    data, before = (
        os.urandom(PART // 2 if operation == "put_object" else 3 * PART),
        conflicts("suffixed"),
    )
    processor = await begun(rig, "r.mp4", data)
    rig.store.lose_answer(operation, ServerUnreachableError("reset"), times=2)
    assert await rig.finish(processor) is End.STORED
    assert rig.store.keys == ["r.mp4"]
    assert_stored(rig, processor, data)
    assert conflicts("suffixed") == before


async def test_an_object_of_its_own_that_no_record_tells_of_is_replaced(
    rig: Rig, size: int
) -> None:
    """A crash came between the completion and its record, and the file changed since."""
    data = os.urandom(size)
    processor = await begun(rig, "r.mp4", data)
    stream = processor.record.stream
    await rig.store.put_object(
        stream.key,
        b"older",
        content_type="",
        metadata={META_STREAM_ID: stream.id},
        crc64=crc64nvme(b"older"),
    )
    assert await rig.finish(processor) is End.STORED
    assert rig.store.keys == [stream.key]
    assert_stored(rig, processor, data)


async def test_a_conflict_that_fails_says_key_and_setting(rig: Rig, size: int) -> None:
    rig.set(s3_key_template="{filename}", s3_key_conflict=KeyConflict.FAIL)
    data, before = os.urandom(size), conflicts("failed")
    one = await begun(rig, "a/r.mp4", data)
    (rig.folder / "b").mkdir()
    rig.write(data, name="b/r.mp4")
    assert await rig.admit("b/r.mp4") is None
    other = await rig.checkpoints.load_stream_at("", "b/r.mp4")
    assert other is not None
    assert other.state is StreamState.FAILED
    assert "r.mp4" in other.reason
    assert "S3_KEY_CONFLICT" in other.reason
    assert await rig.admit("b/r.mp4") is None  # not tried again by itself
    assert await rig.finish(one) is End.STORED
    assert_stored(rig, one, data)
    assert conflicts("failed") == before + 1


async def test_a_late_conflict_fails_too(rig: Rig, size: int) -> None:
    rig.set(s3_key_template="{filename}", s3_key_conflict=KeyConflict.FAIL)
    processor = await begun(rig, "r.mp4", os.urandom(size))
    await rig.store.put_object("r.mp4", b"x", content_type="", metadata={}, crc64=crc64nvme(b"x"))
    assert await rig.finish(processor) is End.FAILED
    assert "S3_KEY_CONFLICT" in processor.record.stream.reason
    assert rig.store.data("r.mp4") == b"x"
    assert rig.store.open_uploads == {}


async def test_the_key_of_a_failed_stream_is_free_again(rig: Rig) -> None:
    rig.set(s3_key_template="{filename}")
    one = await begun(rig, "a/r.mp4", os.urandom(4 * PART))
    rig.folder.joinpath("a/r.mp4").write_bytes(b"")
    assert await rig.finish(one) is End.TRUNCATED
    other = await begun(rig, "b/r.mp4", b"data")
    assert other.record.stream.key == "r.mp4"
