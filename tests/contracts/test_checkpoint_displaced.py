"""A stream whose path another one has taken is led to by nothing, until it comes to its end."""

from dataclasses import replace

from tests.support.checkpoint_records import A, B, claimed, stream

from cefmp4.model.stream import StreamState
from cefmp4.ports.checkpoints import CheckpointStore

STORED = stream(state=StreamState.STORED)


async def rename_over(store: CheckpointStore) -> None:
    """The file of s2 takes the name of the one of s1."""
    lease = await claimed(store, stream("s2", "b.mp4"), B)
    await store.save(stream("s2", "a.mp4"), lease)


async def test_a_rename_over_it(store: CheckpointStore) -> None:
    await store.release(await claimed(store, STORED))
    assert await store.load_displaced("") == []
    await rename_over(store)
    assert await store.load_displaced("") == [STORED]
    assert await store.load_displaced("another folder") == []


async def test_a_next_generation_that_did_not_wait(store: CheckpointStore) -> None:
    await store.release(await claimed(store, STORED))
    await store.release(await claimed(store, stream("s2", previous_id="s1"), B))
    await store.release(await claimed(store, stream("s3", previous_id="s2"), B))
    assert {one.id for one in await store.load_displaced("")} == {"s1", "s2"}
    assert await store.load_stream("s1") == STORED


async def test_it_can_be_brought_to_its_end(store: CheckpointStore) -> None:
    await store.release(await claimed(store, STORED))
    await rename_over(store)
    lease = await claimed(store, STORED, A)
    assert await store.claim(STORED, B) is None
    assert await store.load_stream_at("", "a.mp4") == stream("s2", "a.mp4")
    ended = replace(STORED, state=StreamState.DESCRIBED)
    await store.save(ended, lease)
    await store.release(lease)
    assert await store.load_displaced("") == []
    assert await store.load_stream("s1") == ended
    assert [one.id for one in await store.load_streams()] == ["s2"]


async def test_it_may_have_another_name(store: CheckpointStore) -> None:
    await store.release(await claimed(store, STORED))
    await rename_over(store)
    moved = replace(STORED, relpath="c.mp4")
    await store.save(moved, await claimed(store, moved))
    assert await store.load_displaced("") == []
    assert await store.load_stream_at("", "c.mp4") == moved
    assert await store.load_stream_at("", "a.mp4") == stream("s2", "a.mp4")


async def test_one_at_its_end_is_not_among_them(store: CheckpointStore) -> None:
    await store.release(await claimed(store, stream(state=StreamState.DESCRIBED)))
    await rename_over(store)
    assert await store.load_displaced("") == []
    assert await store.claim(stream(), A) is None
