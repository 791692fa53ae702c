"""Removes what attempts left in the store: all of one, or of all but one."""

import asyncio
from collections.abc import Callable, Sequence

import structlog

from cefmp4.errors import CefError, TransientError
from cefmp4.model.names import META_PART_BASE, META_STREAM_ID
from cefmp4.outputs.names import attempt_of, hls_prefix
from cefmp4.ports.store import ObjectStore

log = structlog.get_logger()

_PARALLEL_DELETES = 8


async def remove_attempt(store: ObjectStore, *, stream_id: str, attempt: str) -> int:
    """What one attempt wrote, wherever it ran. Returns how many objects; TransientError where some
    are left."""
    found = await _ours(store, stream_id, lambda of: of == attempt)
    removed = await remove(store, found)
    if removed < len(found):
        raise TransientError(f"{len(found) - removed} objects of attempt {attempt} are left")
    return removed


async def remove_other_attempts(store: ObjectStore, *, stream_id: str, attempt: str) -> None:
    removed = await remove(store, await _ours(store, stream_id, lambda of: of != attempt))
    if removed:
        log.info("leftovers of other attempts removed", objects=removed)


async def remove(store: ObjectStore, keys: Sequence[str]) -> int:
    """What the store refuses to delete now is found when an attempt is published or removed."""
    slots = asyncio.Semaphore(_PARALLEL_DELETES)

    async def delete(key: str) -> bool:
        async with slots:
            try:
                await store.delete(key)
            except CefError as error:
                log.warning("object is left behind", key=key, reason=str(error))
                return False
            return True

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(delete(key), name="delete") for key in keys]
    return sum(task.result() for task in tasks)


async def _ours(store: ObjectStore, stream_id: str, is_wanted: Callable[[str], bool]) -> list[str]:
    """Keys of wanted attempts. Where objects can say so, only of those that say that they were made
    of this stream, and are no recording: versions before this one stored recordings under the names
    that they had."""
    keys = [
        found.key
        async for found in store.list_objects(hls_prefix(stream_id))
        if (attempt := attempt_of(found.key, stream_id)) and is_wanted(attempt)
    ]
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
