"""What attempts left goes, and nothing else does."""

import pytest
from awscrt.checksums import crc64nvme
from tests.support.fake_store import FakeObjectStore

from cefmp4.errors import PermanentError, ServerUnreachableError, TransientError
from cefmp4.model.names import META_PART_BASE, META_STREAM_ID
from cefmp4.outputs.leftovers import remove, remove_attempt
from cefmp4.outputs.names import MASTER, STAGED, attempt_of
from cefmp4.outputs.publish import publish
from cefmp4.outputs.sink import SegmentSink


async def put(store: FakeObjectStore, key: str, **metadata: str) -> None:
    data = key.encode()
    told = {META_STREAM_ID: "s1"} | metadata
    await store.put_object(
        key, data, content_type="video/mp4", metadata=told, crc64=crc64nvme(data)
    )


async def attempted(store: FakeObjectStore, attempt: str) -> SegmentSink:
    sink = SegmentSink(store, stream_id="s1", bucket="b", attempt=attempt)
    await sink.put(f"{sink.folder(STAGED)}/{MASTER}", attempt.encode())
    await sink.put(f"{sink.folder('hevc-720p')}/seg_00000.m4s", b"segment")
    return sink


def names(store: FakeObjectStore) -> list[str]:
    return [key.removeprefix("hls/s1/") for key in store.keys]


@pytest.mark.parametrize(
    ("key", "attempt"),
    [
        ("hls/s1/hevc-720p.a3/seg_00000.m4s", "a3"),
        ("hls/s1/audio-0.a3/deep/er", "a3"),
        ("hls/s1/master.m3u8", ""),
    ],
)
def test_whose_an_object_is(key: str, attempt: str) -> None:
    assert attempt_of(key, "s1") == attempt


async def test_publishing_removes_what_others_left() -> None:
    store = FakeObjectStore()
    await attempted(store, "a1")
    await attempted(store, "a2")
    for _ in range(2):
        await publish(store, stream_id="s1", attempt="a2")
        assert names(store) == [
            "attempt.a2/master.m3u8",
            "hevc-720p.a2/seg_00000.m4s",
            "master.m3u8",
        ]
        assert store.data("hls/s1/master.m3u8") == b"a2"


async def test_an_attempt_that_left_nothing_is_not_published() -> None:
    store = FakeObjectStore()
    await attempted(store, "a1")
    before = names(store)
    with pytest.raises(PermanentError, match=r"left no master\.m3u8"):
        await publish(store, stream_id="s1", attempt="a2")
    assert names(store) == before


async def test_one_attempt_is_removed_and_its_neighbour_stays() -> None:
    store = FakeObjectStore()
    await attempted(store, "a1")
    await attempted(store, "a2")
    assert await remove_attempt(store, stream_id="s1", attempt="a1") == 2
    assert {attempt_of(key, "s1") for key in store.keys} == {"a2"}
    assert await remove_attempt(store, stream_id="s1", attempt="a1") == 0


async def test_what_is_not_ours_stays() -> None:
    store = FakeObjectStore()
    await put(store, "hls/s1/hevc.a1/theirs", **{META_STREAM_ID: "another"})
    await put(store, "hls/s1/camera.a1/recording.mp4", **{META_PART_BASE: "5"})
    assert await remove_attempt(store, stream_id="s1", attempt="a1") == 0
    assert len(store.keys) == 2


async def test_what_cannot_be_removed_now_is_said() -> None:
    store = FakeObjectStore()
    await attempted(store, "a1")
    store.fail("delete", ServerUnreachableError())
    with pytest.raises(TransientError, match="1 objects of attempt a1 are left"):
        await remove_attempt(store, stream_id="s1", attempt="a1")
    assert await remove_attempt(store, stream_id="s1", attempt="a1") == 1


async def test_removing_goes_on_after_a_refusal() -> None:
    store = FakeObjectStore()
    await put(store, "hls/s1/a.a1/1")
    await put(store, "hls/s1/a.a1/2")
    store.fail("delete", ServerUnreachableError())
    assert await remove(store, store.keys) == 1
