"""Two recordings that would have one key: both are stored, each under its own."""

import os

import pytest
from awscrt.checksums import crc64nvme
from tests.support.ingest_world import PART, World

from cefmp4 import metrics
from cefmp4.errors import ServerUnreachableError
from cefmp4.ingest.fate import End
from cefmp4.ingest.processor import StreamProcessor
from cefmp4.model.names import META_STREAM_ID, KeyConflict, next_key
from cefmp4.model.stream import StreamState


@pytest.fixture(params=[PART // 2, 3 * PART + 99], ids=["single", "parts"])
def size(request: pytest.FixtureRequest) -> int:
    found: int = request.param
    return found


def conflicts(outcome: str) -> float:
    count: float = metrics.key_conflicts.labels(outcome)._value.get()
    return count


async def begun(world: World, name: str, data: bytes) -> StreamProcessor:
    (world.folder / name).parent.mkdir(exist_ok=True)
    world.write(data, name=name)
    processor = await world.admit(name)
    assert processor is not None
    await world.look(processor)
    return processor


def assert_stored(world: World, processor: StreamProcessor, data: bytes) -> None:
    stream = processor.record.stream
    assert stream.is_proven
    assert world.store.data(stream.key) == data


async def test_two_growing_files_of_one_name(world: World, size: int) -> None:
    world.template = "{filename}"
    first, second = os.urandom(size), os.urandom(size)
    one = await begun(world, "a/r.mp4", first)
    other = await begun(world, "b/r.mp4", second)
    assert await world.finish(other) is End.STORED
    assert await world.finish(one) is End.STORED
    assert_stored(world, one, first)
    assert_stored(world, other, second)
    assert one.record.stream.key == "r.mp4"
    assert other.record.stream.key == f"r~{other.record.stream.id}.mp4"
    assert len(world.store.keys) == 2


async def test_the_next_generation_leaves_the_former_its_object(world: World, size: int) -> None:
    world.template = "{filename}"
    first, second = os.urandom(size), os.urandom(size)
    world.write(first)
    one = await world.stored()
    world.write(second)
    other = await world.stored()
    assert other.record.stream.generation == 2
    assert_stored(world, one, first)
    assert_stored(world, other, second)


async def test_what_others_put_there_meanwhile_stays(world: World, size: int) -> None:
    """No reservation tells of it: only the store does, at completion."""
    world.template = "{filename}"
    data, before = os.urandom(size), conflicts("suffixed")
    processor = await begun(world, "r.mp4", data)
    for taken in ("r.mp4", next_key("r.mp4", processor.record.stream.id)):
        await world.store.put_object(
            taken, b"another's", content_type="", metadata={}, crc64=crc64nvme(b"another's")
        )
    assert await world.finish(processor) is End.STORED
    assert world.store.data("r.mp4") == b"another's"
    assert_stored(world, processor, data)
    assert world.store.open_uploads == {}
    assert conflicts("suffixed") == before + 2


async def test_a_document_that_lies_there_makes_the_key_taken(world: World) -> None:
    """It may be a recording of an older version, whose name ends like that."""
    world.template = "{filename}"
    await world.store.put_object(
        "r.mp4.metadata.json", b"{}", content_type="", metadata={}, crc64=crc64nvme(b"{}")
    )
    processor = await begun(world, "r.mp4", b"data")
    assert processor.record.stream.key == f"r~{processor.record.stream.id}.mp4"


async def test_a_reservation_lost_with_the_memory_of_redis(world: World, size: int) -> None:
    world.template = "{filename}"
    first, second = os.urandom(size), os.urandom(size)
    one = await begun(world, "a/r.mp4", first)
    world.checkpoints.wipe()
    await world.checkpoints.mark_used()
    other = await begun(world, "b/r.mp4", second)  # nobody told it of the first
    assert one.record.stream.key == other.record.stream.key
    assert await world.finish(one) is End.STORED
    assert await world.finish(other) is End.STORED
    assert_stored(world, one, first)
    assert_stored(world, other, second)
    assert world.store.open_uploads == {}


@pytest.mark.parametrize("operation", ["put_object", "complete_upload"])
async def test_a_lost_answer_is_no_conflict(world: World, operation: str) -> None:
    world.template = "{filename}"
    data, before = (
        os.urandom(PART // 2 if operation == "put_object" else 3 * PART),
        conflicts("suffixed"),
    )
    processor = await begun(world, "r.mp4", data)
    world.store.lose_answer(operation, ServerUnreachableError("reset"), times=2)
    assert await world.finish(processor) is End.STORED
    assert world.store.keys == ["r.mp4"]
    assert_stored(world, processor, data)
    assert conflicts("suffixed") == before


async def test_an_object_of_its_own_that_no_record_tells_of_is_replaced(
    world: World, size: int
) -> None:
    """A crash came between the completion and its record, and the file changed since."""
    data = os.urandom(size)
    processor = await begun(world, "r.mp4", data)
    stream = processor.record.stream
    await world.store.put_object(
        stream.key,
        b"older",
        content_type="",
        metadata={META_STREAM_ID: stream.id},
        crc64=crc64nvme(b"older"),
    )
    assert await world.finish(processor) is End.STORED
    assert world.store.keys == [stream.key]
    assert_stored(world, processor, data)


async def test_a_conflict_that_fails_says_key_and_setting(world: World, size: int) -> None:
    world.template, world.on_conflict = "{filename}", KeyConflict.FAIL
    data, before = os.urandom(size), conflicts("failed")
    one = await begun(world, "a/r.mp4", data)
    (world.folder / "b").mkdir()
    world.write(data, name="b/r.mp4")
    assert await world.admit("b/r.mp4") is None
    other = await world.checkpoints.load_stream_at("", "b/r.mp4")
    assert other is not None
    assert other.state is StreamState.FAILED
    assert "r.mp4" in other.reason
    assert "S3_KEY_CONFLICT" in other.reason
    assert await world.admit("b/r.mp4") is None  # not tried again by itself
    assert await world.finish(one) is End.STORED
    assert_stored(world, one, data)
    assert conflicts("failed") == before + 1


async def test_a_late_conflict_fails_too(world: World, size: int) -> None:
    world.template, world.on_conflict = "{filename}", KeyConflict.FAIL
    processor = await begun(world, "r.mp4", os.urandom(size))
    await world.store.put_object("r.mp4", b"x", content_type="", metadata={}, crc64=crc64nvme(b"x"))
    assert await world.finish(processor) is End.FAILED
    assert "S3_KEY_CONFLICT" in processor.record.stream.reason
    assert world.store.data("r.mp4") == b"x"
    assert world.store.open_uploads == {}


async def test_the_key_of_a_failed_stream_is_free_again(world: World) -> None:
    world.template = "{filename}"
    one = await begun(world, "a/r.mp4", os.urandom(4 * PART))
    world.folder.joinpath("a/r.mp4").write_bytes(b"")
    assert await world.finish(one) is End.TRUNCATED
    other = await begun(world, "b/r.mp4", b"data")
    assert other.record.stream.key == "r.mp4"
