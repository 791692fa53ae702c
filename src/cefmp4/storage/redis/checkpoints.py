"""What Redis remembers, under these keys:

cefmp4:epoch:<folder> set at first use: missing means a first start, or that Redis was emptied
cefmp4:folders        set of the identities of watched folders
cefmp4:paths:<folder> hash path -> id of the latest stream there
cefmp4:paths          the same, of records that an older version wrote
cefmp4:streams        hash id -> record
cefmp4:unreadable     hash id -> record that could not be read and held a path
cefmp4:keys           hash object key -> id of the stream that alone may store there
cefmp4:displaced      set of the ids of unfinished streams whose path another one took
cefmp4:parts:<id>     hash part number -> size:crc64:etag:time
cefmp4:lease:<id>     owner|fence, expires
cefmp4:fence          counter
cefmp4:memo:<name>    small facts
cefmp4:live:<name>    views of one instance, expires; cefmp4:instances has their names
cefmp4:note:<name>    why one instance cannot work now, expires
cefmp4:requests       channel
"""

import asyncio
import json
import os
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import TypeVar

import structlog

from cefmp4 import metrics
from cefmp4.errors import InvariantError, LeaseLostError
from cefmp4.model.part import Part
from cefmp4.model.stream import Stream
from cefmp4.model.view import StreamView, most_telling
from cefmp4.ports.checkpoints import Lease
from cefmp4.storage.redis import scripts
from cefmp4.storage.redis.link import PAGE, RedisLink, connect
from cefmp4.storage.redis.mend import mend
from cefmp4.storage.redis.owner import is_dead
from cefmp4.storage.redis.records import (
    decode_part,
    decode_stream,
    decode_views,
    encode_part,
    encode_stream,
    encode_views,
    to_bytes,
    to_text,
)

log = structlog.get_logger()
T = TypeVar("T")

_CHANNEL = "cefmp4:requests"  # commands tell running instances what an operator asked for
_HOLDS_ITS_KEY = 1
LIVE_VIEWS_MS = 5000
MAX_LIVE_VIEWS = 1000  # per instance; written once a second, so it must stay small


class RedisCheckpointStore:
    """Every call is one request, or a few where much is read; what must be atomic is one script."""

    def __init__(self, link: RedisLink, *, lease_seconds: float, instance: str) -> None:
        self._link = link
        self._lease_ms = max(1, int(lease_seconds * 1000))
        self._instance = instance

    def __repr__(self) -> str:
        return f"<RedisCheckpointStore {self._instance} lease={self._lease_ms}ms>"

    async def is_fresh(self, folder: str = "") -> bool:
        return not await self._link.call("EXISTS", _key_of("epoch", folder))

    async def mark_used(self, folder: str = "") -> None:
        await self._link.call("SET", _key_of("epoch", folder), "1", "NX")

    async def load_streams(self, folder: str | None = None) -> list[Stream]:
        if folder is None:
            folders = ["", *map(to_text, await self._link.call("SMEMBERS", "cefmp4:folders"))]
        else:
            folders = [folder]
        ids: set[bytes] = set()
        for name in folders:
            async for paths in self._link.pages("HSCAN", _key_of("paths", name)):
                ids.update(paths.values())
        streams: list[Stream] = []
        for page in _pages(list(ids)):
            records = await self._link.call("HMGET", "cefmp4:streams", *page)
            streams += await asyncio.to_thread(_decode_streams, records)
        return streams

    async def load_displaced(self, folder: str) -> list[Stream]:
        records = await self._link.run(scripts.DISPLACED)
        return [stream for stream in _decode_streams(records) if stream.folder == folder]

    async def load_stream(self, stream_id: str) -> Stream | None:
        record = await self._link.call("HGET", "cefmp4:streams", stream_id)
        return next(iter(_decode_streams([record])), None)

    async def load_stream_at(self, folder: str, relpath: str) -> Stream | None:
        stream_id = await self._link.call("HGET", _key_of("paths", folder), to_bytes(relpath))
        return None if stream_id is None else await self.load_stream(to_text(stream_id))

    async def load_streams_of_keys(self, keys: Sequence[str]) -> list[Stream]:
        streams: list[Stream] = []
        for page in _pages(keys):
            ids = await self._link.call("HMGET", "cefmp4:keys", *page)
            if held := [stream_id for stream_id in ids if stream_id is not None]:
                records = await self._link.call("HMGET", "cefmp4:streams", *held)
                streams += await asyncio.to_thread(_decode_streams, records)
        return streams

    async def load_parts(self, stream_id: str) -> dict[int, Part]:
        parts: dict[int, Part] = {}
        async for page in self._link.pages("HSCAN", f"cefmp4:parts:{stream_id}"):
            parts.update(_decode_parts(stream_id, page))
        return dict(sorted(parts.items()))

    async def claim(self, stream: Stream, owner: str) -> Lease | None:
        dead = ""
        for _ in range(3):  # again, past an owner who is seen to be dead, or what nobody can read
            fence, *in_the_way = await self._link.run(
                scripts.CLAIM,
                words=[
                    stream.id,
                    to_bytes(owner),
                    stream.folder,
                    to_bytes(stream.relpath),
                    stream.previous_id or "",
                    self._lease_ms,
                    encode_stream(stream),
                    dead,
                    stream.held_key,
                ],
            )
            if not in_the_way:
                return Lease(stream.id, owner, int(fence))
            dead = to_text(in_the_way[0])
            if not dead and await self._set_aside(stream):
                continue
            if not _held_by_dead(dead):
                return None
            log.info("the former owner is dead: its lease is taken over", stream_id=stream.id)
        return None

    async def _set_aside(self, stream: Stream) -> bool:
        """Whether its path was held by a record that cannot be read, and is free now: the recording
        is handled as if Redis had never known it. The record is kept, for whoever wants to look."""
        held = await self._link.call(
            "HGET", _key_of("paths", stream.folder), to_bytes(stream.relpath)
        )
        record = None if held is None else await self._link.call("HGET", "cefmp4:streams", held)
        if record is None or _decode_streams([record]):
            return False
        taken = await self._link.run(scripts.SET_ASIDE, words=[held, record, stream.held_key])
        if taken:
            metrics.unreadable_records.labels("stream").inc()
            log.warning("a stream record was set aside", former_id=to_text(held))
        return bool(taken)

    async def renew(self, leases: Iterable[Lease]) -> set[str]:
        lost: set[str] = set()
        for page in _pages(list(leases)):
            places = await self._link.run(
                scripts.RENEW,
                keys=[_lease_key(lease.stream_id) for lease in page],
                words=[self._lease_ms, *map(_lease_value, page)],
            )
            lost.update(page[place - 1].stream_id for place in places)
        return lost

    async def release(self, lease: Lease) -> None:
        await self._link.run(
            scripts.RELEASE, keys=[_lease_key(lease.stream_id)], words=[_lease_value(lease)]
        )

    async def holder(self, stream_id: str) -> str | None:
        lease = await self._link.call("GET", _lease_key(stream_id))
        if lease is None or _held_by_dead(to_text(lease)):
            return None
        return _owner_of(to_text(lease))

    async def save(
        self, stream: Stream, lease: Lease, *, parts: Iterable[Part] = (), drop: Iterable[int] = ()
    ) -> bool:
        drops = list(drop)
        words: list[str | bytes | int] = [
            stream.id,
            _lease_value(lease),
            encode_stream(stream),
            stream.folder,
            to_bytes(stream.relpath),
            stream.held_key,
            len(drops),
            *drops,
        ]
        for part in parts:
            words += (part.number, encode_part(part))
        answer = int(await self._link.run(scripts.SAVE, words=words))
        if not answer:
            raise LeaseLostError(f"stream {stream.id} is no longer ours")
        return answer == _HOLDS_ITS_KEY

    async def forget(self, stream: Stream) -> None:
        dead = ""
        for _ in range(2):
            lease = to_text(
                await self._link.run(
                    scripts.FORGET,
                    words=[stream.id, stream.folder, to_bytes(stream.relpath), dead],
                )
            )
            if not lease:
                return
            if not _held_by_dead(lease):
                break
            dead = lease
        raise LeaseLostError(f"stream {stream.id} is being worked on")

    async def adopt(self, folder: str, streams: Iterable[Stream]) -> list[Stream]:
        adopted = []
        for page in _pages(list(streams)):
            words: list[str | bytes | int] = [folder]
            for stream in page:
                record = encode_stream(stream.in_folder(folder))
                words += (stream.id, to_bytes(stream.relpath), stream.folder, record)
            taken = set(map(to_text, await self._link.run(scripts.ADOPT, words=words)))
            adopted += [one.in_folder(folder) for one in page if one.id in taken]
        return adopted

    async def request(self, action: str, stream_id: str) -> None:
        await self._link.call("PUBLISH", _CHANNEL, json.dumps([action, stream_id]))

    async def requests(self) -> AsyncGenerator[tuple[str, str], None]:
        """One that comes while the connection is down is lost: the records tell the same."""
        async with aclosing(self._link.messages(_CHANNEL)) as messages:
            async for data in messages:
                if request := _decode_request(data):
                    yield request

    async def remember(self, name: str, value: str) -> None:
        await self._link.call("SET", f"cefmp4:memo:{name}", to_bytes(value))

    async def recall(self, name: str) -> str | None:
        value = await self._link.call("GET", f"cefmp4:memo:{name}")
        return None if value is None else to_text(value)

    async def publish_views(self, views: list[StreamView], note: str = "") -> None:
        shown = most_telling(views, MAX_LIVE_VIEWS)
        await self._link.run(
            scripts.PUBLISH_VIEWS,
            words=[self._instance, encode_views(shown), LIVE_VIEWS_MS, to_bytes(note)],
        )

    async def load_views(self) -> list[StreamView]:
        told = await self._told_by_instances("live")
        return [view for raw in told.values() for view in decode_views(raw)]

    async def load_notes(self) -> dict[str, str]:
        told = await self._told_by_instances("note")
        return {instance: to_text(raw) for instance, raw in told.items()}

    async def _told_by_instances(self, what: str) -> dict[str, bytes]:
        instances = await self._link.call("ZRANGE", "cefmp4:instances", 0, -1)
        if not instances:
            return {}
        keys = [f"cefmp4:{what}:".encode() + instance for instance in instances]
        told = zip(instances, await self._link.call("MGET", *keys), strict=True)
        return {to_text(instance): raw for instance, raw in told if raw is not None}


@asynccontextmanager
async def open_checkpoints(
    url: str, *, lease_seconds: float
) -> AsyncIterator[RedisCheckpointStore]:
    """No connection is made here: the first call says whether Redis is there."""
    link = connect(url, mend)
    instance = f"{socket.gethostname()}:{os.getpid()}"  # unique among the living
    try:
        yield RedisCheckpointStore(link, lease_seconds=lease_seconds, instance=instance)
    finally:
        await link.close()


def _key_of(what: str, folder: str) -> str:
    return f"cefmp4:{what}:{folder}" if folder else f"cefmp4:{what}"


def _lease_key(stream_id: str) -> str:
    return f"cefmp4:lease:{stream_id}"


def _lease_value(lease: Lease) -> bytes:
    return to_bytes(f"{lease.owner}|{lease.fence}")


def _owner_of(lease: str) -> str:
    return lease.rpartition("|")[0]


def _held_by_dead(lease: str) -> bool:
    return bool(lease) and is_dead(_owner_of(lease))


def _pages(items: Sequence[T]) -> list[Sequence[T]]:
    return [items[start : start + PAGE] for start in range(0, len(items), PAGE)]


def _decode_streams(records: Iterable[bytes | None]) -> list[Stream]:
    """A record that cannot be read counts as forgotten: S3 and the disk know better anyway."""
    streams = []
    for record in records:
        if record is None:
            continue
        try:
            streams.append(decode_stream(record))
        except InvariantError as error:
            log.warning("a stream record was left out", reason=str(error))
    return streams


def _decode_parts(stream_id: str, page: dict[bytes, bytes]) -> dict[int, Part]:
    parts = {}
    for number, text in page.items():
        try:
            parts[int(number)] = decode_part(int(number), to_text(text))
        except (InvariantError, ValueError) as error:
            log.warning("a part record was left out", stream_id=stream_id, reason=str(error))
    return parts


def _decode_request(data: bytes) -> tuple[str, str] | None:
    try:
        action, stream_id = json.loads(data)
    except (ValueError, TypeError):
        log.warning("a request that cannot be read was left out")
        return None
    return str(action), str(stream_id)
