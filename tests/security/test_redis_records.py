"""A stream's record in Redis that nobody can read holds up no recording: it is set aside, and the
recording is handled as if Redis had never known it."""

import asyncio
import json
import os
from pathlib import Path

import pytest
from redis.asyncio import Redis
from tests.support.checkpoint_records import A, B, claimed, part, stream
from tests.support.servers import SwiftServer
from tests.support.service import MIB, open_site, reached

from cefmp4 import metrics
from cefmp4.model.stream import Stream, StreamState
from cefmp4.recording.digests import crc_of
from cefmp4.recording.stamps import stamp_of
from cefmp4.storage.redis.checkpoints import open_checkpoints
from cefmp4.storage.redis.records import encode_stream

pytestmark = pytest.mark.integration

PATIENCE_S = 30.0

UNREADABLE = {
    "no JSON": b"\xff{",
    "JSON of something else": b"[1]",
    "another state": json.dumps({"id": "s1", "relpath": "a.mp4", "state": "lost"}).encode(),
    "JSON without an end": b"[" * 100_000,
    "nothing": b"",
    "words for numbers": json.dumps(
        {"id": "s1", "relpath": "a.mp4", "part_base": 1, "updated_at": "x"}
    ).encode(),
}


@pytest.mark.parametrize("record", UNREADABLE.values(), ids=UNREADABLE)
async def test_a_path_is_free_again(record: bytes, redis_url: str) -> None:
    before = metrics.unreadable_records.labels("stream")._value.get()
    async with (
        open_checkpoints(redis_url, lease_seconds=5) as store,
        Redis.from_url(redis_url) as redis,
    ):
        old = stream("s1", key="k")
        lease = await claimed(store, old)
        await store.save(old, lease, parts=[part(1)])
        await redis.hset("cefmp4:streams", "s1", record)
        assert await store.claim(stream("s2"), B) is None, "somebody works on it"
        await store.release(lease)
        new = stream("s2", key="k")
        assert await store.save(new, await claimed(store, new, B)), "it holds its key"
        assert await store.load_stream_at("", "a.mp4") == new
        assert await redis.hgetall("cefmp4:unreadable") == {b"s1": record}
    assert metrics.unreadable_records.labels("stream")._value.get() == before + 1


async def test_what_can_be_read_is_never_set_aside(redis_url: str) -> None:
    async with open_checkpoints(redis_url, lease_seconds=5) as store:
        old = stream("s1")
        lease = await claimed(store, old, A)
        await store.save(old, lease)
        await store.release(lease)
        assert await store.claim(stream("s2"), B) is None
        assert await store.load_stream("s1") == old


async def test_ids_that_are_no_utf8_are_asked_for_like_any_other(redis_url: str) -> None:
    async with (
        open_checkpoints(redis_url, lease_seconds=5) as store,
        Redis.from_url(redis_url) as redis,
    ):
        await redis.hset("cefmp4:paths", "a.mp4", b"\xff")
        assert await store.load_stream_at("", "a.mp4") is None
        new = stream("s1")
        await store.save(new, await claimed(store, new))
        assert await store.load_stream_at("", "a.mp4") == new


KEYS = ("streams", "paths", "keys", "folders", "displaced", "fence", "instances", "lease:s1")


async def test_keys_that_are_something_else_are_begun_anew(redis_url: str) -> None:
    before = metrics.unreadable_records.labels("index")._value.get()
    async with (
        open_checkpoints(redis_url, lease_seconds=5) as store,
        Redis.from_url(redis_url) as redis,
    ):
        await store.mark_used()
        for key in KEYS:
            await redis.delete(f"cefmp4:{key}")
            is_text = key not in ("fence", "lease:s1")
            await (redis.set if is_text else redis.lpush)(f"cefmp4:{key}", "something else")
        new = stream("s1")
        await store.save(new, await claimed(store, new), parts=[part(1)])
        assert await store.load_streams() == [new]
        assert await store.is_fresh(), "what is stored is looked for"
    assert metrics.unreadable_records.labels("index")._value.get() >= before + len(KEYS) - 1


@pytest.mark.acceptance
@pytest.mark.asyncio(loop_scope="session")
async def test_a_recording_is_stored_though_its_record_cannot_be_read(
    s3_server: SwiftServer, tmp_path: Path
) -> None:
    async with open_site(s3_server, tmp_path) as site, Redis.from_url(site.valkey.url) as redis:
        path = site.watched / "a.mp4"
        await asyncio.to_thread(path.write_bytes, os.urandom(100_000))
        await site.service.start()
        assert await site.described({"a.mp4"}, 60) == set()
        first = (await site.streams())["a.mp4"]
        await redis.hset("cefmp4:streams", first.id, b"{")
        await asyncio.to_thread(path.write_bytes, os.urandom(120_000))

        assert await site.described({"a.mp4"}, 60) == set(), await site.service.said()
        assert not (await site.held("a.mp4")).faults(path)
        assert await site.service.stop() == 0


@pytest.mark.acceptance
@pytest.mark.asyncio(loop_scope="session")
async def test_a_service_starts_and_stores_whatever_its_keys_are(
    s3_server: SwiftServer, tmp_path: Path
) -> None:
    async with open_site(s3_server, tmp_path) as site, Redis.from_url(site.valkey.url) as redis:
        for key in KEYS:
            await redis.set(f"cefmp4:{key}", "something else")
        path = site.watched / "a.mp4"
        await asyncio.to_thread(path.write_bytes, os.urandom(100_000))
        await site.service.start()
        assert await site.described({"a.mp4"}, 60) == set(), await site.service.said()
        assert not (await site.held("a.mp4")).faults(path)
        assert await site.service.stop() == 0


@pytest.mark.parametrize("is_running", [False, True])
async def test_a_claimed_proof_deletes_no_file(
    is_running: bool, s3_server: SwiftServer, tmp_path: Path
) -> None:
    """All that can be known of the file is right in the record; only its object is missing."""
    async with (
        open_site(s3_server, tmp_path, AFTER_UPLOAD="delete", SETTLE_SECONDS="0.5") as site,
        Redis.from_url(site.valkey.url) as redis,
    ):
        (site.watched / "first.mp4").write_bytes(os.urandom(1000))
        await site.service.start()

        async def is_deleted() -> bool:
            return not (site.watched / "first.mp4").exists()

        assert await reached(is_deleted, PATIENCE_S)
        first = (await site.streams())["first.mp4"]
        if not is_running:
            await site.service.kill()
        file, planted = tmp_path / "precious.mp4", "20261126T064032Z-4bdb00000001"
        file.write_bytes(os.urandom(5000))
        claimed = Stream(
            id=planted,
            relpath="precious.mp4",
            folder=first.folder,
            part_base=MIB,
            state=StreamState.STORED,
            key=f"streams/{planted}/precious.mp4",
            size=5000,
            stamp=stamp_of(file.stat()),
            crc64=crc_of(file.read_bytes()),
            etag="0" * 32,
            updated_at=1.0,
        )
        await redis.hset("cefmp4:streams", planted, encode_stream(claimed))
        await redis.hset(f"cefmp4:paths:{first.folder}", "precious.mp4", planted)
        file.rename(site.watched / "precious.mp4")
        if not is_running:
            await site.service.start()

        async def is_said() -> bool:
            return "its object is not in the store" in await site.service.said()

        assert await reached(is_said, PATIENCE_S)
        assert (site.watched / "precious.mp4").exists()


async def test_a_redis_that_is_emptied_again_and_again_holds_up_nothing_afterwards(
    s3_server: SwiftServer, tmp_path: Path
) -> None:
    """Faster than anybody looks, and for longer than it takes to notice the first time."""
    async with (
        open_site(s3_server, tmp_path, LEASE_SECONDS="2") as site,
        Redis.from_url(site.valkey.url) as redis,
    ):
        await site.service.start()
        (site.watched / "during.mp4").write_bytes(os.urandom(1000))
        until = asyncio.get_running_loop().time() + 2.5  # three looks at whether it remembers
        while asyncio.get_running_loop().time() < until:
            await redis.flushall()
            await asyncio.sleep(0.02)
        (site.watched / "after.mp4").write_bytes(os.urandom(1000))
        assert await site.described({"during.mp4", "after.mp4"}, PATIENCE_S) == set()
        assert await site.service.stop() == 0
