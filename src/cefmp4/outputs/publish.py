"""The commit of an encode: what an attempt left staged becomes what players find. And its opposite:
the removal of what an attempt wrote."""

import asyncio
from collections.abc import AsyncIterator, Callable

import structlog
from awscrt.checksums import crc64nvme

from cefmp4.errors import CefError, PermanentError, TransientError
from cefmp4.model.names import HLS_ROOT, META_PART_BASE, META_STREAM_ID, content_type_of
from cefmp4.ports.store import ObjectStore

log = structlog.get_logger()

MASTER = "master.m3u8"
RESULT = "result.json"
STAGED = "attempt"
_PARALLEL_DELETES = 8


def hls_prefix(stream_id: str) -> str:
    return f"{HLS_ROOT}/{stream_id}/"


def attempt_folder(name: str, attempt: str) -> str:
    return f"{name}.{attempt}"


async def publish(store: ObjectStore, *, stream_id: str, attempt: str) -> None:
    """Makes a finished attempt the one that players find, and removes what other attempts left.
    Done again, here or elsewhere, it does the same."""
    prefix = hls_prefix(stream_id)
    data = await read_staged(store, MASTER, stream_id=stream_id, attempt=attempt)
    await store.put_object(
        prefix + MASTER,
        data,
        content_type=content_type_of(MASTER),
        metadata={META_STREAM_ID: stream_id},
        crc64=crc64nvme(data),
    )
    others = [key async for key in _others(store, prefix, attempt)]
    removed = await remove(store, await _ours(store, others, stream_id))
    if removed:
        log.info("leftovers of other attempts removed", objects=removed)


async def read_staged(store: ObjectStore, name: str, *, stream_id: str, attempt: str) -> bytes:
    key = f"{hls_prefix(stream_id)}{attempt_folder(STAGED, attempt)}/{name}"
    if await store.head(key) is None:
        raise PermanentError(f"attempt {attempt} of {stream_id} left no {name}")
    return await store.read(key)


async def discard(store: ObjectStore, *, stream_id: str, attempt: str) -> int:
    """Removes what one attempt wrote, wherever it ran. Returns how many objects; TransientError
    where some are left."""
    prefix = hls_prefix(stream_id)
    found = [key async for key in _keys(store, prefix, lambda found: found == attempt)]
    own = await _ours(store, found, stream_id)
    removed = await remove(store, own)
    if removed < len(own):
        raise TransientError(f"{len(own) - removed} objects of attempt {attempt} are left")
    return removed


async def remove(store: ObjectStore, keys: list[str]) -> int:
    """What the store refuses to delete now is found by the next `publish` or `discard`."""
    slots, removed = asyncio.Semaphore(_PARALLEL_DELETES), 0

    async def delete(key: str) -> None:
        nonlocal removed
        async with slots:
            try:
                await store.delete(key)
                removed += 1
            except CefError as error:
                log.warning("object is left behind", key=key, reason=str(error))

    async with asyncio.TaskGroup() as group:
        for key in keys:
            group.create_task(delete(key), name="delete")
    return removed


async def _ours(store: ObjectStore, keys: list[str], stream_id: str) -> list[str]:
    """Those of which the object itself says that it was made of this stream, and is no recording:
    versions before this one stored recordings under the names that they had."""
    if not store.proof.keeps_metadata:
        return keys
    ours = []
    for key in keys:
        stored = await store.head(key)
        told = stored.metadata if stored is not None else {}
        if told.get(META_STREAM_ID) == stream_id and META_PART_BASE not in told:
            ours.append(key)
        elif stored is not None:
            log.warning("not ours, so it stays", key=key)
    return ours


def _others(store: ObjectStore, prefix: str, attempt: str) -> AsyncIterator[str]:
    return _keys(store, prefix, lambda found: found != attempt)


async def _keys(
    store: ObjectStore, prefix: str, is_wanted: Callable[[str], bool]
) -> AsyncIterator[str]:
    """Objects in folders of attempts; those with fixed names belong to none."""
    async for stored in store.list_objects(prefix):
        folder, slash, _ = stored.key.removeprefix(prefix).partition("/")
        if slash and is_wanted(folder.rpartition(".")[2]):
            yield stored.key
