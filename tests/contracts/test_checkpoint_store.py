"""What every checkpoint store remembers, and for how long."""

import asyncio
import os
from contextlib import aclosing

import pytest
from tests.support.checkpoint_backend import Backend
from tests.support.checkpoint_records import B, claimed, part, stream

from cefmp4.errors import LeaseLostError
from cefmp4.model.part import PartSizing
from cefmp4.model.stream import FileStamp, StreamState
from cefmp4.model.view import view_of_record
from cefmp4.ports.checkpoints import CheckpointStore

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
        stamp=FileStamp(2**63 - 1, 2**45, 1_700_000_000_123_456_789, 7, 2**62 + 1, 2**60),
        crc64=2**64 - 1,
        sha256="ab",
        etag="e",
        playable=False,
        started_at=1_700_000_000.123456,
        host="h",
    )
    await store.save(full, await claimed(store, full))
    assert await store.load_stream("s1") == full
    assert await store.load_stream_at("", path) == full
    assert await store.load_streams() == [full]


async def test_what_is_not_known(store: CheckpointStore) -> None:
    assert await store.load_stream("s1") is None
    assert await store.load_stream_at("", "a.mp4") is None
    assert await store.load_parts("s1") == {}
    assert await store.load_streams() == []
    assert await store.holder("s1") is None
    assert await store.recall("proof") is None
    assert await store.load_views() == []


async def test_ten_thousand_parts(store: CheckpointStore) -> None:
    mine = stream()
    lease = await claimed(store, mine)
    everything = [part(number) for number in range(1, 10_001)]
    await store.save(mine, lease, parts=everything)
    assert list((await store.load_parts("s1")).values()) == everything
    await store.save(mine, lease, drop=range(1, 10_001))
    assert await store.load_parts("s1") == {}


async def test_a_rename_moves_the_path(store: CheckpointStore) -> None:
    path = os.fsdecode(b"odd \xff\n.mp4")
    lease = await claimed(store, stream(path=path))
    await store.save(stream(path="b.mp4"), lease)
    assert await store.load_stream_at("", path) is None
    assert await store.load_streams() == [stream(path="b.mp4")]
    await claimed(store, stream("s2", path), B)
    assert len(await store.load_streams()) == 2


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


async def test_an_instance_says_why_it_cannot_work(store: CheckpointStore) -> None:
    await store.publish_views([], note="waiting for \N{SNOWMAN}")
    assert list((await store.load_notes()).values()) == ["waiting for \N{SNOWMAN}"]
    await store.publish_views([])
    assert await store.load_notes() == {}
