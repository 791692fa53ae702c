"""What every checkpoint store keeps to: run on the fake and on a real Redis."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import pytest
from redis.asyncio import Redis
from tests.fake_checkpoints import FakeCheckpointStore

from cefmp4.errors import LeaseLostError
from cefmp4.model.part import Part, PartSizing
from cefmp4.model.stream import FileStamp, Stream, StreamState
from cefmp4.model.view import view_of_record
from cefmp4.ports import CheckpointStore, Lease
from cefmp4.storage.checkpoints import open_checkpoints
from cefmp4.storage.owner import owner_id

A, B = "host-a|a|x|1|1", "host-b|b|x|1|1"
HOSTILE_PATHS = [
    "plain.mp4",
    "with space 'and' \"quotes\".mp4",
    "line\nbreak\ttab\x01.mp4",
    "sub/früh \N{VIDEO CAMERA}.mp4",
    os.fsdecode(b"invalid \xff\xfe\xc3.mp4"),
    'back\\slash {"relpath":"other"}.mp4',
    "[red]markup[/red] \x1b[31m.mp4",
    "x" * 255,
]


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Backend:
    store: CheckpointStore
    expire_leases: Callable[[], Any]
    wipe: Callable[[], Any]


@pytest.fixture
def fake_backend() -> Backend:
    clock = Clock()
    fake = FakeCheckpointStore(lease_seconds=10, clock=clock)

    async def pass_time() -> None:
        clock.now += 11

    async def wipe() -> None:
        fake.wipe()

    return Backend(fake, pass_time, wipe)


@pytest.fixture
async def redis_backend(redis_url: str) -> AsyncIterator[Backend]:
    async with (
        Redis.from_url(redis_url) as client,
        open_checkpoints(redis_url, lease_seconds=60) as store,
    ):

        async def expire() -> None:
            for key in await client.keys("cefmp4:lease:*"):
                await client.pexpire(key, 1)
            await asyncio.sleep(0.01)
            assert not await client.keys("cefmp4:lease:*")

        yield Backend(store, expire, client.flushall)


@pytest.fixture(
    params=["fake_backend", pytest.param("redis_backend", marks=pytest.mark.integration)]
)
def backend(request: pytest.FixtureRequest) -> Backend:
    found: Backend = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def store(backend: Backend) -> CheckpointStore:
    return backend.store


def stream(stream_id: str = "s1", path: str = "a.mp4", **fields: Any) -> Stream:
    return Stream(id=stream_id, relpath=path, part_base=10 << 20, **fields)


def part(number: int, size: int = 10) -> Part:
    etag = f'"{number:x}:"'
    return Part(number=number, size=size, crc64=2**64 - number, etag=etag, uploaded_at=1.25)


@pytest.fixture
def other_process() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


async def claimed(store: CheckpointStore, new: Stream, owner: str = A) -> Lease:
    lease = await store.claim(new, owner)
    assert lease is not None
    return lease


async def test_is_fresh_until_used_and_again_when_wiped(backend: Backend) -> None:
    assert await backend.store.is_fresh()
    await backend.store.mark_used()
    assert not await backend.store.is_fresh()
    await backend.wipe()
    assert await backend.store.is_fresh()


@pytest.mark.parametrize("path", HOSTILE_PATHS)
async def test_a_stream_comes_back_as_it_was_saved(store: CheckpointStore, path: str) -> None:
    full = stream(
        path=path,
        generation=3,
        previous_id="s0",
        state=StreamState.UPLOADING,
        reason=f"because of {path}",
        key="k/ä",
        upload_id="u",
        part_sizing=PartSizing.EQUAL,
        sent_high=2**45,
        size=2**45 + 1,
        stamp=FileStamp(2**63 - 1, 2**45, 1_700_000_000_123_456_789, 1_700_000_000_123_456_790),
        crc64=2**64 - 1,
        sha256="ab",
        etag="e",
        playable=False,
        started_at=1_700_000_000.123456,
        host="h",
        labels={"camera": path},
    )
    await store.save(full, await claimed(store, full))
    assert await store.load_stream("s1") == full
    assert await store.load_stream_at(path) == full
    assert await store.load_streams() == [full]


async def test_what_is_not_known(store: CheckpointStore) -> None:
    assert await store.load_stream("s1") is None
    assert await store.load_stream_at("a.mp4") is None
    assert await store.load_parts("s1") == {}
    assert await store.load_streams() == []
    assert await store.holder("s1") is None
    assert await store.recall("proof") is None
    assert await store.load_views() == []


async def test_a_saved_stream_shares_nothing_with_its_writer(store: CheckpointStore) -> None:
    mine = stream(labels={"a": "1"})
    await store.save(mine, await claimed(store, mine))
    mine.labels["a"] = "2"
    mine.size = 99
    loaded = await store.load_stream("s1")
    assert loaded == stream(labels={"a": "1"})


async def test_parts_are_added_replaced_and_dropped(store: CheckpointStore) -> None:
    mine = stream()
    lease = await claimed(store, mine)
    await store.save(mine, lease, parts=[part(3), part(1), part(10_000)])
    await store.save(mine, lease, parts=[part(3, size=7)], drop=[1, 2])
    parts = await store.load_parts("s1")
    assert parts == {3: part(3, size=7), 10_000: part(10_000)}
    assert list(parts) == [3, 10_000]
    await store.save(mine, lease, parts=[part(3, size=8)], drop=[3])
    assert (await store.load_parts("s1"))[3].size == 8


async def test_ten_thousand_parts(store: CheckpointStore) -> None:
    mine = stream()
    lease = await claimed(store, mine)
    everything = [part(number) for number in range(1, 10_001)]
    await store.save(mine, lease, parts=everything)
    assert list((await store.load_parts("s1")).values()) == everything
    await store.save(mine, lease, drop=range(1, 10_001))
    assert await store.load_parts("s1") == {}


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
        new = stream(f"s{number}", generation=number, previous_id=f"s{number - 1}")
        lease = await claimed(store, new)
        await store.save(new, lease, parts=[part(1)])
        await store.release(lease)
    assert await store.load_stream("s1") is None
    assert await store.load_parts("s1") == {}
    assert await store.load_parts("s2") == {1: part(1)}


async def test_a_rename_moves_the_path(store: CheckpointStore) -> None:
    path = os.fsdecode(b"odd \xff\n.mp4")
    lease = await claimed(store, stream(path=path))
    await store.save(stream(path="b.mp4"), lease)
    assert await store.load_stream_at(path) is None
    assert await store.load_streams() == [stream(path="b.mp4")]
    await claimed(store, stream("s2", path), B)
    assert len(await store.load_streams()) == 2


async def test_a_stream_whose_path_was_taken_does_not_take_it_back(store: CheckpointStore) -> None:
    replaced = await claimed(store, stream("s1", "a.mp4"), A)
    mover = await claimed(store, stream("s2", "b.mp4"), B)
    await store.save(stream("s2", "a.mp4"), mover)
    await store.save(stream("s1", "a.mp4", reason="replaced"), replaced)
    assert await store.load_stream_at("a.mp4") == stream("s2", "a.mp4")
    assert [found.id for found in await store.load_streams()] == ["s2"]


async def test_a_claim_under_a_new_path_that_was_not_saved_counts_once(
    store: CheckpointStore,
) -> None:
    await store.release(await claimed(store, stream()))
    lease = await claimed(store, stream(path="b.mp4"))
    assert await store.load_streams() == [stream()]
    await store.save(stream(path="b.mp4"), lease)
    assert await store.load_stream_at("a.mp4") is None


async def test_forget_leaves_no_trace(store: CheckpointStore) -> None:
    lease = await claimed(store, stream())
    await store.save(stream(), lease, parts=[part(1)])
    with pytest.raises(LeaseLostError):
        await store.forget(stream())
    await store.release(lease)
    await store.forget(stream())
    await store.forget(stream())
    assert await store.load_stream("s1") is None
    assert await store.load_parts("s1") == {}
    assert await store.load_streams() == []
    await claimed(store, stream("s2"), B)


async def test_forget_gives_the_path_back_to_the_former_generation(store: CheckpointStore) -> None:
    lease = await claimed(store, stream())
    await store.save(stream(), lease, parts=[part(1)])
    await store.release(lease)
    second = stream("s2", previous_id="s1")
    await store.release(await claimed(store, second))
    await store.forget(second)
    assert await store.load_streams() == [stream()]
    assert await store.load_parts("s1") == {1: part(1)}
    await claimed(store, stream())


async def test_forget_drops_a_former_generation_of_another_path(store: CheckpointStore) -> None:
    await store.release(await claimed(store, stream()))
    lease = await claimed(store, stream("s2", previous_id="s1"))
    await store.save(stream("s2", "moved.mp4", previous_id="s1"), lease)
    await store.release(lease)
    await store.forget(stream("s2", "moved.mp4", previous_id="s1"))
    assert await store.load_stream("s1") is None
    assert await store.load_streams() == []


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


async def test_requests_reach_whoever_listens(store: CheckpointStore) -> None:
    heard: list[tuple[str, str]] = []

    async def listen() -> None:
        async with aclosing(store.requests()) as requests:  # type: ignore[type-var]
            async for request in requests:
                heard.append(request)

    listener = asyncio.create_task(listen())
    async with asyncio.timeout(10):
        while not heard:
            await store.request("retry", "s1")
            await asyncio.sleep(0.02)
    listener.cancel()
    await asyncio.wait([listener])
    assert heard[0] == ("retry", "s1")


async def test_memos(store: CheckpointStore) -> None:
    odd = os.fsdecode(b"\xff")
    await store.remember("proof", f'{{"a": "{odd}"}}')
    assert await store.recall("proof") == f'{{"a": "{odd}"}}'


async def test_views_are_shown_to_others(store: CheckpointStore) -> None:
    views = [view_of_record(stream(path=path)) for path in HOSTILE_PATHS]
    await store.publish_views(views)
    assert await store.load_views() == views
