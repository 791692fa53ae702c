"""A key belongs to one stream at a time: what every checkpoint store promises about that."""

import asyncio
from dataclasses import replace

from tests.support.checkpoint_backend import Backend
from tests.support.checkpoint_records import A, B, claimed, stream

from cefmp4.model.stream import StreamState
from cefmp4.ports.checkpoints import CheckpointStore


async def owners(store: CheckpointStore, *keys: str) -> list[str]:
    return [found.id for found in await store.load_streams_of_keys(keys)]


async def test_the_first_claim_holds_the_key(store: CheckpointStore) -> None:
    first, second = stream("s1", "a/r.mp4", key="r.mp4"), stream("s2", "b/r.mp4", key="r.mp4")
    lease = await claimed(store, first)
    other = await claimed(store, second, B)
    assert await store.save(first, lease)
    assert not await store.save(second, other)
    assert await owners(store, "r.mp4") == ["s1"]
    assert await store.save(replace(second, key="r~s2.mp4"), other)
    assert await owners(store, "r.mp4", "none", "r~s2.mp4") == ["s1", "s2"]


async def test_of_many_at_once_one_gets_it(store: CheckpointStore) -> None:
    streams = [stream(f"s{n}", f"{n}/r.mp4", key="r.mp4") for n in range(20)]
    leases = await asyncio.gather(*(claimed(store, one) for one in streams))
    held = await asyncio.gather(
        *(store.save(one, lease) for one, lease in zip(streams, leases, strict=True))
    )
    assert held.count(True) == 1


async def test_a_stream_without_a_key_holds_none(store: CheckpointStore) -> None:
    for number in (1, 2):
        one = stream(f"s{number}", f"{number}.mp4")
        assert await store.save(one, await claimed(store, one))
    assert await owners(store, "") == []


async def test_another_key_lets_the_former_go(store: CheckpointStore) -> None:
    first = stream(key="k1")
    lease = await claimed(store, first)
    assert await store.save(replace(first, key="k2"), lease)
    second = stream("s2", "b.mp4", key="k1")
    assert await store.save(second, await claimed(store, second))


async def test_nobody_s_key_is_let_go_by_another(store: CheckpointStore) -> None:
    first, second = stream(key="k"), stream("s2", "b.mp4", key="k")
    await claimed(store, first)
    lease = await claimed(store, second)
    second = second.moved_to(StreamState.FAILED, "its key is taken")
    assert await store.save(second, lease)  # it needs none any more
    await store.release(lease)
    await store.forget(second)
    assert await owners(store, "k") == ["s1"]


async def test_a_stream_that_ends_without_an_object_lets_its_key_go(store: CheckpointStore) -> None:
    for number, state in enumerate((StreamState.FAILED, StreamState.DROPPED)):
        one = stream(f"s{number}", f"{number}.mp4", key="k")
        lease = await claimed(store, one)
        assert await store.save(one, lease)
        await store.save(one.moved_to(state, "gone"), lease)
        assert await owners(store, "k") == []


async def test_a_finished_stream_keeps_its_key_when_newer_generations_come(
    store: CheckpointStore,
) -> None:
    for number in range(1, 5):
        previous = f"s{number - 1}" if number > 1 else None
        one = stream(f"s{number}", key=f"k{number}", previous_id=previous)
        lease = await claimed(store, one)
        assert await store.save(replace(one, state=StreamState.STORED), lease)
        await store.release(lease)
    late = stream("s9", "other.mp4", key="k1")
    assert not await store.save(late, await claimed(store, late))


async def test_forgetting_lets_the_key_go(store: CheckpointStore) -> None:
    first = stream(key="k")
    lease = await claimed(store, first)
    await store.save(first, lease)
    await store.release(lease)
    await store.forget(first)
    second = stream("s2", "b.mp4", key="k")
    assert await store.save(second, await claimed(store, second))


async def test_claiming_again_takes_no_key_from_another(store: CheckpointStore) -> None:
    first, second = stream(key="k"), stream("s2", "b.mp4", key="k")
    await claimed(store, first)
    await store.release(await claimed(store, second))
    assert not await store.save(second, await claimed(store, second, B))


async def test_after_the_memory_was_lost_whoever_writes_first_holds_it(backend: Backend) -> None:
    store = backend.store
    first, second = stream(key="k"), stream("s2", "b.mp4", key="k")
    await claimed(store, first)
    await backend.wipe()
    lease = await claimed(store, second, B)
    assert await store.save(second, lease)
    assert not await store.save(first, await claimed(store, first, A))
    assert await owners(store, "k") == ["s2"]
