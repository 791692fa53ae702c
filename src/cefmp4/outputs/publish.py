"""The commit of an encode: what an attempt left staged becomes what players find. And what was
published of a stream before: a ledger that was emptied has forgotten such work; the store has
not."""

import json
from typing import Any

from cefmp4.errors import PermanentError
from cefmp4.model.names import META_STREAM_ID, content_type_of
from cefmp4.outputs.leftovers import remove_other_attempts
from cefmp4.outputs.names import MASTER, RESULT, STAGED, attempt_folder, hls_prefix
from cefmp4.ports.store import ObjectStore
from cefmp4.recording.digests import crc_of

SOURCE = "source"  # in the result document: which object it was made of


async def publish(store: ObjectStore, *, stream_id: str, attempt: str) -> None:
    """Makes a finished attempt the one that players find, and removes what other attempts left.
    Done again, here or elsewhere, it does the same."""
    data = await read_staged(store, MASTER, stream_id=stream_id, attempt=attempt)
    await store.put_object(
        hls_prefix(stream_id) + MASTER,
        data,
        content_type=content_type_of(MASTER),
        metadata={META_STREAM_ID: stream_id},
        crc64=crc_of(data),
    )
    await remove_other_attempts(store, stream_id=stream_id, attempt=attempt)


async def has_result(store: ObjectStore, *, stream_id: str) -> bool:
    """Whether anything was published of it. Whether that is whole, see find_published."""
    prefix = hls_prefix(stream_id)
    return (
        await store.head(prefix + RESULT) is not None
        and await store.head(prefix + MASTER) is not None
    )


async def is_published(store: ObjectStore, *, stream_id: str, attempt: str) -> bool:
    """Whether what players find was made by that attempt."""
    key = hls_prefix(stream_id) + MASTER
    if await store.head(key) is None:
        return False
    return f"{attempt_folder('', attempt)}/" in (await store.read(key)).decode("utf-8", "replace")


async def read_staged(store: ObjectStore, name: str, *, stream_id: str, attempt: str) -> bytes:
    key = f"{hls_prefix(stream_id)}{attempt_folder(STAGED, attempt)}/{name}"
    if await store.head(key) is None:
        raise PermanentError(f"attempt {attempt} of {stream_id} left no {name}")
    return await store.read(key)


async def find_published(
    store: ObjectStore, *, stream_id: str, source: dict[str, Any]
) -> dict[str, Any] | None:
    """The result document, only if all of it is there, and made of the very object that is asked
    about. None: there is none, or it is not `source` that it tells of, or
    something that it names is not there as it says."""
    if not await has_result(store, stream_id=stream_id):
        return None
    prefix = hls_prefix(stream_id)
    try:
        document = json.loads(await store.read(prefix + RESULT))
        if document[SOURCE] != source:
            return None
        playlists = [track["playlist"] for track in document["renditions"]]
        rows = [row for track in document["renditions"] for row in track["segments"]]
        sizes = {row["key"]: row["bytes"] for row in rows}
    except (ValueError, KeyError, TypeError, RecursionError):
        return None  # of another version, or not ours
    # An attempt that died while it was published left its own rows beside the master of another.
    master = (await store.read(prefix + MASTER)).decode("utf-8", "replace")
    stored = {found.key: found.size async for found in store.list_objects(prefix)}
    is_whole = (
        bool(playlists)
        and all(name in master and prefix + name in stored for name in playlists)
        and all(stored.get(key) == size for key, size in sizes.items())
    )
    return document if is_whole else None
