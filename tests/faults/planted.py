"""Starts the service with one safeguard broken: `python -m tests.faults.planted NAME ingest`.

The harness must notice each of them, or it proves nothing."""

import sys
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from cefmp4.__main__ import command
from cefmp4.errors import LeaseLostError
from cefmp4.ingest.proof import Proof
from cefmp4.ingest.record import StreamRecord
from cefmp4.ingest.recover import recovery
from cefmp4.model.event import StreamEvent
from cefmp4.model.object import ListedPart
from cefmp4.model.part import Part, PartRange
from cefmp4.recording.digests import hash_range
from cefmp4.storage.redis.checkpoints import RedisCheckpointStore
from cefmp4.storage.redis.records import encode_stream
from cefmp4.watch.folder_scanner import FolderScanner
from cefmp4.watch.watcher import Watcher


def skip_the_comparison() -> None:
    """The proof believes that what was sent is what is there now."""

    def held(self: Proof, part: PartRange, crc64: int) -> bool:
        return part.number in self._record.parts

    Proof._is_held = held  # type: ignore[method-assign]


def drop_events() -> None:
    """Every second event is lost, and the reconcile that would find it does not run."""
    original = Watcher.events

    async def events(self: Watcher) -> list[StreamEvent]:
        return (await original(self))[1::2]

    async def run(self: FolderScanner, deliver: Any) -> None:
        async for _ in _never():
            pass

    Watcher.events = events  # type: ignore[method-assign]
    FolderScanner.run = run  # type: ignore[method-assign]


async def _never() -> AsyncIterator[None]:
    import asyncio

    await asyncio.Event().wait()
    yield


def ignore_the_fence() -> None:
    """A stream that was taken over is worked on all the same, and its writes are let through."""
    original = RedisCheckpointStore.save

    async def save(
        self: RedisCheckpointStore,
        stream: Any,
        lease: Any,
        *,
        parts: Iterable[Part] = (),
        drop: Iterable[int] = (),
    ) -> bool:
        try:
            return await original(self, stream, lease, parts=parts, drop=drop)
        except LeaseLostError:
            record = encode_stream(stream)
            await self._link.call("HSET", "cefmp4:streams", stream.id, record)
            return True

    async def claim(self: RedisCheckpointStore, stream: Any, owner: str) -> Any:
        from cefmp4.ports.checkpoints import Lease

        return Lease(stream.id, owner, 1)

    RedisCheckpointStore.save = save  # type: ignore[method-assign]
    RedisCheckpointStore.claim = claim  # type: ignore[method-assign]


def trust_a_dense_listing() -> None:
    """After a restart as many parts count as sent as are listed, whatever their numbers."""

    async def reconcile(
        self: recovery.Recovery, record: StreamRecord, source: Any, listed: dict[int, ListedPart]
    ) -> None:
        for number, part in enumerate(sorted(listed.values(), key=lambda one: one.number), 1):
            cut = record.stream.plan.range_of(number)
            crc64 = hash_range(source.fd, cut.start, cut.start + part.size)
            await record.part_stored(
                Part(number=number, size=part.size, crc64=crc64, etag=part.etag, uploaded_at=1.0)
            )

    recovery.Recovery._reconcile = reconcile  # type: ignore[method-assign]


def forget_to_abort() -> None:
    """Uploads of streams that failed stay open."""
    from cefmp4.storage.s3.store import S3Store

    async def abort(self: S3Store, key: str, upload_id: str) -> None:
        return None

    S3Store.abort_upload = abort  # type: ignore[method-assign]


PLANTS: dict[str, Callable[[], None]] = {
    "skip-the-comparison": skip_the_comparison,
    "drop-events": drop_events,
    "ignore-the-fence": ignore_the_fence,
    "trust-a-dense-listing": trust_a_dense_listing,
    "forget-to-abort": forget_to_abort,
}


if __name__ == "__main__":
    PLANTS[sys.argv.pop(1)]()
    command()
