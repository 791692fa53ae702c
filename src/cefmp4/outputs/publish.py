"""The commit of an encode: what an attempt left staged becomes what players find."""

from cefmp4.errors import PermanentError
from cefmp4.model.names import META_STREAM_ID, content_type_of
from cefmp4.outputs.leftovers import remove_other_attempts
from cefmp4.outputs.names import MASTER, STAGED, attempt_folder, hls_prefix
from cefmp4.ports.store import ObjectStore
from cefmp4.recording.digests import crc_of


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


async def read_staged(store: ObjectStore, name: str, *, stream_id: str, attempt: str) -> bytes:
    key = f"{hls_prefix(stream_id)}{attempt_folder(STAGED, attempt)}/{name}"
    if await store.head(key) is None:
        raise PermanentError(f"attempt {attempt} of {stream_id} left no {name}")
    return await store.read(key)
