"""Streams of several watched folders in one store: the same names do not meet."""

from tests.support.checkpoint_records import A, B, claimed, part, stream

from cefmp4.ports.checkpoints import CheckpointStore

HERE, THERE, OLD = "folder-1", "folder-2", ""


async def test_folders_have_the_same_paths_side_by_side(store: CheckpointStore) -> None:
    mine, theirs = stream("s1", folder=HERE), stream("s2", folder=THERE)
    old = stream("s3")
    for one, owner in ((mine, A), (theirs, B), (old, B)):
        await store.save(one, await claimed(store, one, owner))
    assert await store.load_stream_at(HERE, "a.mp4") == mine
    assert await store.load_stream_at(THERE, "a.mp4") == theirs
    assert await store.load_stream_at(OLD, "a.mp4") == old
    assert await store.load_streams(HERE) == [mine]
    assert await store.load_streams(THERE) == [theirs]
    assert await store.load_streams(OLD) == [old]
    assert {found.id for found in await store.load_streams()} == {"s1", "s2", "s3"}


async def test_each_folder_is_fresh_until_it_is_used(store: CheckpointStore) -> None:
    await store.mark_used(HERE)
    assert not await store.is_fresh(HERE)
    assert await store.is_fresh(THERE)


async def test_a_rename_and_forget_leave_the_other_folder_alone(store: CheckpointStore) -> None:
    mine, theirs = stream("s1", folder=HERE), stream("s2", folder=THERE)
    lease = await claimed(store, mine)
    await store.release(await claimed(store, theirs, B))
    await store.save(stream("s1", "b.mp4", folder=HERE), lease)
    assert await store.load_stream_at(HERE, "a.mp4") is None
    assert await store.load_stream_at(THERE, "a.mp4") == theirs
    await store.release(lease)
    await store.forget(stream("s1", "b.mp4", folder=HERE))
    assert await store.load_streams() == [theirs]


async def test_the_former_generation_comes_back_in_its_own_folder(store: CheckpointStore) -> None:
    first = stream("s1", folder=HERE)
    await store.release(await claimed(store, first))
    second = stream("s2", folder=HERE, previous_id="s1")
    await store.release(await claimed(store, second))
    await store.forget(second)
    assert await store.load_streams(HERE) == [first]
    assert await store.load_streams(OLD) == []


async def test_a_stream_that_is_saved_with_another_folder_leaves_its_own(
    store: CheckpointStore,
) -> None:
    await store.release(await claimed(store, stream()))
    moved = stream(folder=HERE)
    lease = await claimed(store, moved)
    await store.save(moved, lease, parts=[part(1)])
    assert await store.load_streams(OLD) == []
    assert await store.load_streams(HERE) == [moved]
    assert await store.load_parts("s1") == {1: part(1)}


async def test_adopted_streams_keep_all_but_their_folder(store: CheckpointStore) -> None:
    old = [stream("s1", "a.mp4", reason="x"), stream("s2", "b.mp4", folder=THERE)]
    for one in old:
        lease = await claimed(store, one)
        await store.save(one, lease, parts=[part(1)])
        await store.release(lease)
    expected = [
        stream("s1", "a.mp4", reason="x", folder=HERE),
        stream("s2", "b.mp4", folder=HERE),
    ]
    assert await store.adopt(HERE, old) == expected
    assert await store.adopt(HERE, old) == []
    assert sorted(await store.load_streams(), key=lambda one: one.id) == expected
    assert await store.load_parts("s1") == {1: part(1)}


async def test_what_is_not_adopted(store: CheckpointStore) -> None:
    """One that is worked on; one that a later generation followed; one whose path is taken."""
    worked_on, former = stream("s1"), stream("s2", "b.mp4")
    latest = stream("s3", "b.mp4", previous_id="s2")
    await claimed(store, worked_on)
    await store.release(await claimed(store, former))
    await store.release(await claimed(store, latest))
    other, mine = stream("s4", "c.mp4"), stream("s5", "c.mp4", folder=HERE)
    await store.release(await claimed(store, other))
    await store.release(await claimed(store, mine))
    assert await store.adopt(HERE, [worked_on, former, other]) == []
    assert {one.id for one in await store.load_streams(OLD)} == {"s1", "s3", "s4"}
    assert await store.load_streams(HERE) == [mine]
