"""Where the bytes of one attempt go: named objects under the stream's prefix, a few at a time. It
remembers what it put, so that a failed encode leaves nothing behind."""

import asyncio
from functools import partial

from cefmp4.errors import ServerUnreachableError, ThrottledError
from cefmp4.model.names import META_STREAM_ID, content_type_of
from cefmp4.outputs.leftovers import remove
from cefmp4.outputs.names import attempt_folder, hls_prefix
from cefmp4.ports.store import ObjectStore
from cefmp4.recording.digests import crc_of
from cefmp4.retry import for_a_while

_PARALLEL_PUTS = 4
PATIENCE_S = 40.0  # a store that is away for less costs no encode; ffmpeg counts as stalled at 60


class SegmentSink:
    def __init__(self, store: ObjectStore, *, stream_id: str, bucket: str, attempt: str) -> None:
        self._store = store
        self.stream_id = stream_id
        self.bucket = bucket
        self._attempt = attempt
        self._slots = asyncio.Semaphore(_PARALLEL_PUTS)
        self._keys: set[str] = set()

    def __repr__(self) -> str:
        return f"<SegmentSink {self.prefix} objects={len(self._keys)}>"

    @property
    def prefix(self) -> str:
        return hls_prefix(self.stream_id)

    def folder(self, name: str) -> str:
        return attempt_folder(name, self._attempt)

    async def put(self, name: str, data: bytes) -> None:
        """`name` counts from the prefix. Returns once the store has the bytes."""
        key = self.prefix + name
        put = partial(
            self._store.put_object,
            key,
            data,
            content_type=content_type_of(key),
            metadata={META_STREAM_ID: self.stream_id},
            crc64=crc_of(data),
        )
        async with self._slots:
            self._keys.add(key)  # before: a lost answer may still have stored it
            await for_a_while(put, seconds=PATIENCE_S, on=(ServerUnreachableError, ThrottledError))

    async def remove_folder(self, folder: str) -> None:
        """Takes back what it put there: something else comes into its place."""
        keys = sorted(key for key in self._keys if key.startswith(f"{self.prefix}{folder}/"))
        self._keys.difference_update(keys)
        await remove(self._store, keys)

    async def remove_own(self) -> None:
        """Takes back what this sink put."""
        keys, self._keys = sorted(self._keys), set()
        await remove(self._store, keys)
