"""What was published of a stream before: found only if it is whole, and made of the very object
that is asked about. A ledger that was emptied has forgotten such work; the store has not."""

import json
from typing import Any

from cefmp4.outputs.names import MASTER, RESULT, hls_prefix
from cefmp4.ports.store import ObjectStore

SOURCE = "source"  # in the result document: which object it was made of


async def find_published(
    store: ObjectStore, *, stream_id: str, source: dict[str, Any]
) -> dict[str, Any] | None:
    """The result document. None: there is none, or it is not `source` that it tells of, or
    something that it names is not there as it says."""
    prefix = hls_prefix(stream_id)
    if await store.head(prefix + RESULT) is None or await store.head(prefix + MASTER) is None:
        return None
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
