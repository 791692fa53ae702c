"""The Redis store when Redis is away, hangs, refuses, forgets, or holds very much."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
from redis._parsers.base import BaseParser
from redis.asyncio import Redis
from tests.support.servers import ValkeyServer

from cefmp4 import metrics
from cefmp4.errors import AccessDeniedError, CefError, ServerUnreachableError, SettingsError
from cefmp4.model.part import Part
from cefmp4.model.stream import FileStamp, Stream, StreamState
from cefmp4.storage.redis import link
from cefmp4.storage.redis.checkpoints import RedisCheckpointStore, open_checkpoints
from cefmp4.storage.redis.records import decode_stream, encode_stream
from cefmp4.tasks import cancel_all

pytestmark = pytest.mark.integration
OWNER = "host|boot|ns|1|1"


def stream(stream_id: str = "s1", path: str = "a.mp4") -> Stream:
    return Stream(id=stream_id, relpath=path, part_base=10 << 20)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ValkeyServer]:
    own = ValkeyServer(tmp_path)
    await own.start()
    yield own
    await own.stop()


@pytest.fixture
async def store(server: ValkeyServer) -> AsyncIterator[RedisCheckpointStore]:
    async with open_checkpoints(server.url, lease_seconds=60) as opened:
        yield opened


def is_up() -> float:
    return float(metrics.server_up.labels("redis")._value.get())


async def test_a_restart_in_between_is_not_noticed(
    server: ValkeyServer, store: RedisCheckpointStore
) -> None:
    lease = await store.claim(stream(), OWNER)
    assert lease
    await server.restart()
    await store.save(stream(), lease)  # a script that the server must be told again
    assert await store.renew([lease]) == set()


async def test_a_cancel_is_heeded_at_every_turn_of_a_call(store: RedisCheckpointStore) -> None:
    async def ask_for_ever() -> None:
        while True:
            await store.mark_used()

    deaf = []
    for turns in range(40):
        asking = asyncio.create_task(ask_for_ever())
        for _ in range(turns):
            await asyncio.sleep(0)
        asking.cancel()
        _, left = await asyncio.wait({asking}, timeout=1.0)
        if left:
            deaf.append(turns)
            await cancel_all(left)
    assert deaf == []


async def test_gone_and_back(server: ValkeyServer, store: RedisCheckpointStore) -> None:
    await store.mark_used()
    assert is_up() == 1
    server.kill()
    for call in (store.is_fresh(), store.load_streams(), store.claim(stream(), OWNER)):
        with pytest.raises(ServerUnreachableError, match="out of reach"):
            await call
    assert is_up() == 0
    await server.start()
    assert not await store.is_fresh()
    assert is_up() == 1


@pytest.mark.alone
async def test_a_server_that_hangs_is_given_up_in_time(
    server: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "REQUEST_TIMEOUT_S", 0.3)
    connected = link.connect(server.url)
    store = RedisCheckpointStore(connected, lease_seconds=60, instance="i")
    await store.mark_used()
    server.pause()
    before = time.monotonic()
    results = await asyncio.gather(*(store.is_fresh() for _ in range(40)), return_exceptions=True)
    assert time.monotonic() - before < 3
    assert all(isinstance(result, ServerUnreachableError) for result in results)
    server.resume()
    assert not await store.is_fresh()
    await connected.close()


async def test_a_cancelled_request_does_not_shift_the_answers(store: RedisCheckpointStore) -> None:
    await store.remember("a", "1")
    for turns in range(30):
        task = asyncio.create_task(store.load_streams())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert await store.recall("a") == "1"


async def test_wrong_password_and_no_password(server: ValkeyServer) -> None:
    for secret in ("", ":nonsense@"):
        async with open_checkpoints(
            f"redis://{secret}127.0.0.1:{server.port}/0", lease_seconds=60
        ) as store:
            with pytest.raises(AccessDeniedError, match="REDIS_URL") as caught:
                await store.is_fresh()
            assert "nonsense" not in str(caught.value)


async def test_a_url_that_is_none() -> None:
    with pytest.raises(SettingsError, match="REDIS_URL") as caught:
        async with open_checkpoints("redis://:hidden@h:port/0", lease_seconds=60):
            pass
    assert "hidden" not in str(caught.value)


async def test_full_and_read_only_servers_are_out_of_reach_until_better(
    server: ValkeyServer, store: RedisCheckpointStore
) -> None:
    lease = await store.claim(stream(), OWNER)
    assert lease
    async with Redis.from_url(server.url) as admin:
        await admin.config_set("maxmemory", 1)
        with pytest.raises(ServerUnreachableError, match="OOM"):
            await store.save(stream(), lease)
        with pytest.raises(ServerUnreachableError, match="OOM"):
            await store.remember("a", "b")
        await admin.config_set("maxmemory", 0)
        await admin.execute_command("REPLICAOF", "127.0.0.1", "1")  # type: ignore[no-untyped-call]
        with pytest.raises(ServerUnreachableError, match="READONLY"):
            await store.save(stream(), lease)
        await admin.execute_command("REPLICAOF", "NO", "ONE")  # type: ignore[no-untyped-call]
        await store.save(stream(), lease)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("MISCONF Redis is configured to save RDB snapshots", ServerUnreachableError),
        ("ERR Error running script: -READONLY You can't write", ServerUnreachableError),
        ("ERR max number of clients reached", ServerUnreachableError),
        ("LOADING Redis is loading the dataset in memory", ServerUnreachableError),
        ("BUSY Redis is busy running a script", ServerUnreachableError),
        ("NOAUTH Authentication required.", AccessDeniedError),
        ("NOPERM this user has no permissions", AccessDeniedError),
    ],
)
def test_what_servers_say(text: str, kind: type[CefError]) -> None:
    error = BaseParser.parse_error(text)  # type: ignore[no-untyped-call]
    assert type(link.translated_error(error)) is kind


async def test_requests_survive_a_restart(
    server: ValkeyServer, store: RedisCheckpointStore
) -> None:
    heard = asyncio.Event()

    async def listen() -> None:
        async with aclosing(store.requests()) as requests:
            async for request in requests:
                assert request == ("forget", "s1")
                heard.set()

    async def ask_until_heard() -> None:
        async with asyncio.timeout(20):
            while not heard.is_set():
                await store.request("forget", "s1")
                await asyncio.wait([asyncio.create_task(heard.wait())], timeout=0.05)
        heard.clear()

    listener = asyncio.create_task(listen())
    await ask_until_heard()
    await server.restart()
    await ask_until_heard()
    listener.cancel()
    await asyncio.wait([listener])


async def test_records_that_cannot_be_read_are_left_out(
    server: ValkeyServer, store: RedisCheckpointStore
) -> None:
    lease = await store.claim(stream(), OWNER)
    assert lease
    async with Redis.from_url(server.url) as admin:
        await admin.hset("cefmp4:paths", mapping={"b.mp4": "s2", "c.mp4": "s3", "d.mp4": "s4"})
        await admin.hset("cefmp4:streams", mapping={"s2": "{", "s3": "[1]"})
        await admin.hset("cefmp4:parts:s1", mapping={"1": "nonsense", "x": "1:2:3:4"})
    assert await store.load_streams() == [stream()]
    assert await store.load_parts("s1") == {}
    reclaimed = await store.claim(stream("s2", "b.mp4"), OWNER)
    assert reclaimed
    await store.save(stream("s2", "b.mp4"), reclaimed)
    assert await store.load_stream("s2") == stream("s2", "b.mp4")


@pytest.mark.alone
async def test_a_hundred_thousand_streams_load_fast_and_in_turns(
    server: ValkeyServer, store: RedisCheckpointStore
) -> None:
    async with Redis.from_url(server.url) as admin:
        for start in range(0, 100_000, 5000):
            records = [_stored(number) for number in range(start, start + 5000)]
            await admin.hset("cefmp4:paths", mapping={r.relpath: r.id for r in records})
            await admin.hset("cefmp4:streams", mapping={r.id: encode_stream(r) for r in records})
    longest = 0.0

    async def watch_the_loop() -> None:
        nonlocal longest
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.005)
            longest = max(longest, time.monotonic() - before)

    watcher = asyncio.create_task(watch_the_loop())
    before = time.process_time()
    streams = await store.load_streams()
    took = time.process_time() - before
    watcher.cancel()
    record, before = encode_stream(_stored(0)), time.process_time()
    for _ in streams:
        decode_stream(record)
    reading = time.process_time() - before  # what this machine takes at least, busy as it is
    assert len({found.id for found in streams}) == 100_000
    assert took < 4 * reading
    assert longest < 0.5


def _stored(number: int) -> Stream:
    return Stream(
        id=f"20260101T000000Z-{number:08x}",
        relpath=f"camera-{number % 100:02d}/2026-01-01/recording-{number:06d}.mp4",
        state=StreamState.DESCRIBED,
        key=f"streams/20260101T000000Z-{number:08x}/recording-{number:06d}.mp4",
        part_base=10 << 20,
        sent_high=10**9,
        size=10**9,
        stamp=FileStamp(number, 10**9, 1_700_000_000_000_000_000, 1_700_000_000_000_000_000),
        crc64=2**63 + number,
        sha256="ab" * 32,
        etag="cd" * 16 + "-96",
        playable=True,
        started_at=1_700_000_000.5,
        closed_at=1_700_000_000.5,
        completed_at=1_700_000_000.5,
        updated_at=1_700_000_000.5,
        host="recorder",
    )


async def test_parts_keep_their_exact_values(store: RedisCheckpointStore) -> None:
    lease = await store.claim(stream(), OWNER)
    assert lease
    part = Part(number=1, size=5 << 30, crc64=2**64 - 1, etag='"a:b:c"', uploaded_at=1 / 3)
    await store.save(stream(), lease, parts=[part])
    assert await store.load_parts("s1") == {1: part}
