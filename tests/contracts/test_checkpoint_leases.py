"""Who may work on a stream, and whose a path is: what every checkpoint store keeps to."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from tests.support.checkpoint_backend import Backend
from tests.support.checkpoint_records import A, B, claimed, part, stream

from cefmp4.errors import LeaseLostError
from cefmp4.model.stream import StreamState
from cefmp4.ports.checkpoints import CheckpointStore
from cefmp4.storage.redis.owner import owner_id


@pytest.fixture
def other_process() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


async def test_a_claim_keeps_others_away(store: CheckpointStore) -> None:
    lease = await claimed(store, stream())
    assert await store.claim(stream(), B) is None
    assert await store.holder("s1") == A
    assert await store.claim(stream(), A) == lease


async def test_a_claim_remembers_a_new_stream_but_never_overwrites(store: CheckpointStore) -> None:
    lease = await claimed(store, stream(size=1))
    assert await store.load_streams() == [stream(size=1)]
    await store.save(stream(size=5), lease)
    await store.release(lease)
    await claimed(store, stream(size=2), B)
    assert await store.load_stream("s1") == stream(size=5)


async def test_every_new_owner_gets_a_higher_fence(backend: Backend) -> None:
    first = await claimed(backend.store, stream())
    await backend.store.release(first)
    second = await claimed(backend.store, stream(), B)
    assert second.fence > first.fence


async def test_an_expired_lease_passes_to_another(backend: Backend) -> None:
    store = backend.store
    first = await claimed(store, stream())
    await backend.expire_leases()
    assert await store.holder("s1") is None
    await claimed(store, stream(), B)
    with pytest.raises(LeaseLostError):
        await store.save(stream(size=7), first, parts=[part(1)])
    assert await store.renew([first]) == {"s1"}
    await store.release(first)  # no error, and it does not touch the lease of B
    assert await store.holder("s1") == B
    assert await store.load_parts("s1") == {}
    assert await store.load_stream("s1") == stream()


async def test_an_expired_lease_that_nobody_took_is_lost_too(backend: Backend) -> None:
    lease = await claimed(backend.store, stream())
    await backend.expire_leases()
    assert await backend.store.renew([lease]) == {"s1"}
    with pytest.raises(LeaseLostError):
        await backend.store.save(stream(), lease)


async def test_renew_tells_the_lost_from_the_held(store: CheckpointStore) -> None:
    leases = [await claimed(store, stream(f"s{n}", f"{n}.mp4")) for n in range(5)]
    await store.release(leases[1])
    await store.release(leases[3])
    await claimed(store, stream("s3", "3.mp4"), B)
    assert await store.renew(leases) == {"s1", "s3"}
    assert await store.renew([]) == set()


async def test_a_lease_of_another_stream_is_no_lease(store: CheckpointStore) -> None:
    lease = await claimed(store, stream("s1", "1.mp4"))
    await claimed(store, stream("s2", "2.mp4"), B)
    with pytest.raises(LeaseLostError):
        await store.save(stream("s2", "2.mp4"), lease)


async def test_after_a_wipe_everything_is_to_be_claimed_again(backend: Backend) -> None:
    store = backend.store
    before = await claimed(store, stream(size=3))
    await store.save(stream(size=3), before, parts=[part(1)])
    await backend.wipe()
    with pytest.raises(LeaseLostError):
        await store.save(stream(size=4), before)
    assert await store.renew([before]) == {"s1"}
    after = await claimed(store, stream(size=4))
    assert after.fence > before.fence
    await store.save(stream(size=4), after, parts=[part(1)])
    assert await store.load_streams() == [stream(size=4)]


async def test_one_of_many_wins_a_new_path(store: CheckpointStore) -> None:
    answers = await asyncio.gather(
        *(store.claim(stream(f"s{n}"), f"host-{n}|b|x|1|1") for n in range(20))
    )
    winners = [answer for answer in answers if answer]
    assert len(winners) == 1
    assert [found.id for found in await store.load_streams()] == [winners[0].stream_id]


async def test_a_path_stays_with_its_stream_after_the_lease(store: CheckpointStore) -> None:
    lease = await claimed(store, stream(state=StreamState.STORED))
    await store.release(lease)
    assert await store.claim(stream("s2"), B) is None
    assert await store.claim(stream("s2"), A) is None


async def test_a_new_generation_takes_the_path_over(store: CheckpointStore) -> None:
    first = stream(state=StreamState.DESCRIBED)
    lease = await claimed(store, first)
    await store.save(first, lease, parts=[part(1)])
    second = stream("s2", generation=2, previous_id="s1")
    assert await store.claim(second, B) is None  # A still holds the former generation
    await store.release(lease)
    await claimed(store, second, B)
    assert await store.load_streams() == [second]
    assert await store.load_stream("s1") == first
    assert await store.load_parts("s1") == {1: part(1)}
    assert await store.claim(first, A) is None  # the path is no longer its own


async def test_an_owner_may_go_on_to_the_next_generation(store: CheckpointStore) -> None:
    await claimed(store, stream(), A)
    await claimed(store, stream("s2", previous_id="s1"), A)


async def test_only_the_last_former_generation_is_kept(store: CheckpointStore) -> None:
    for number in range(1, 4):
        former = f"s{number - 1}"
        new = stream(
            f"s{number}", generation=number, previous_id=former, state=StreamState.DESCRIBED
        )
        lease = await claimed(store, new)
        await store.save(new, lease, parts=[part(1)])
        await store.release(lease)
    assert await store.load_stream("s1") is None
    assert await store.load_parts("s1") == {}
    assert await store.load_parts("s2") == {1: part(1)}


async def test_a_stream_whose_path_was_taken_does_not_take_it_back(store: CheckpointStore) -> None:
    replaced = await claimed(store, stream("s1", "a.mp4"), A)
    mover = await claimed(store, stream("s2", "b.mp4"), B)
    await store.save(stream("s2", "a.mp4"), mover)
    await store.save(stream("s1", "a.mp4", reason="replaced"), replaced)
    assert await store.load_stream_at("", "a.mp4") == stream("s2", "a.mp4")
    assert [found.id for found in await store.load_streams()] == ["s2"]


async def test_a_claim_under_a_new_path_that_was_not_saved_counts_once(
    store: CheckpointStore,
) -> None:
    await store.release(await claimed(store, stream()))
    lease = await claimed(store, stream(path="b.mp4"))
    assert await store.load_streams() == [stream()]
    await store.save(stream(path="b.mp4"), lease)
    assert await store.load_stream_at("", "a.mp4") is None


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
async def test_the_lease_of_a_killed_process_is_taken_at_once(
    store: CheckpointStore, other_process: subprocess.Popen[bytes]
) -> None:
    killed = owner_id("here", other_process.pid)
    lease = await claimed(store, stream(), killed)
    assert await store.claim(stream(), owner_id("here")) is None
    other_process.kill()
    await asyncio.to_thread(os.waitid, os.P_PID, other_process.pid, os.WEXITED | os.WNOWAIT)
    assert await store.holder("s1") is None
    mine = await claimed(store, stream(), owner_id("here"))
    assert mine.fence > lease.fence
    with pytest.raises(LeaseLostError):
        await store.save(stream(), lease)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
async def test_a_stream_of_a_killed_process_can_be_forgotten(
    store: CheckpointStore, other_process: subprocess.Popen[bytes]
) -> None:
    await claimed(store, stream(), owner_id("here", other_process.pid))
    other_process.kill()
    other_process.wait()
    await store.forget(stream())
    assert await store.load_streams() == []
