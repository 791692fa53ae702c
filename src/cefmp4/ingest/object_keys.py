"""Which key a stream stores under: that of the template where it is free, else one of its own."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import structlog

from cefmp4 import metrics
from cefmp4.errors import KeyTakenError, PermanentError
from cefmp4.ingest.record import StreamRecord
from cefmp4.model import names
from cefmp4.model.stream import Stream
from cefmp4.ports.store import ObjectStore
from cefmp4.retry import patiently
from cefmp4.tasks import together

log = structlog.get_logger()
T = TypeVar("T")


class KeyRefusedError(PermanentError):
    """The key is another's, and S3_KEY_CONFLICT=fail."""


@dataclass(frozen=True, slots=True)
class ObjectKeys:
    """A key belongs to the stream that reserved it in Redis, and to whose object lies there."""

    store: ObjectStore
    template: str
    on_conflict: names.KeyConflict

    def wanted_by(self, stream_id: str, relpath: str, *, started_at: float, host: str) -> str:
        return names.object_key(
            self.template, stream_id=stream_id, relpath=relpath, started_at=started_at, host=host
        )

    async def settle(self, record: StreamRecord) -> None:
        """Leaves the stream with a key that is its own. Raises KeyRefusedError."""
        is_free = await record.save()
        while not is_free or await self._has_object(record.stream):
            is_free = await record.moved_to_key(self.key_instead(record.stream))

    def key_instead(self, stream: Stream) -> str:
        """Raises KeyRefusedError."""
        outcome = "suffixed" if self.on_conflict is names.KeyConflict.SUFFIX else "failed"
        metrics.key_conflicts.labels(outcome).inc()
        if self.on_conflict is names.KeyConflict.FAIL:
            raise KeyRefusedError(
                f"the key {stream.key} is another recording's",
                hint="S3_KEY_CONFLICT=suffix stores it beside that one; "
                "so does {stream_id} in S3_KEY_TEMPLATE",
            )
        key = names.next_key(stream.key, stream.id)
        log.warning(
            "the key is another recording's", file_path=stream.relpath, key=stream.key, now=key
        )
        return key

    async def _has_object(self, stream: Stream) -> bool:
        """Whether something lies there, or where the document will: also of an older version, or of
        somebody else who uses the bucket."""
        if names.is_unique_template(self.template):
            return False
        keys = stream.key, names.metadata_key(stream.key)
        found = await together(
            *(patiently(partial(self.store.head, key), what="key lookup") for key in keys)
        )
        return any(stored is not None for stored in found)


async def make_own(
    store: ObjectStore,
    key: str,
    stream_id: str,
    make: Callable[[bool], Coroutine[None, None, T]],
    *,
    what: str,
) -> T:
    """Never over what is another's. An object of this very stream may lie there, made before a
    crash, of which nobody was told: that one is replaced. `make` gets whether there must be none.
    Raises KeyTakenError."""
    try:
        return await patiently(lambda: make(True), what=what)
    except KeyTakenError:
        stored = await patiently(lambda: store.head(key), what="object check")
        if stored is None or stored.metadata.get(names.META_STREAM_ID) != stream_id:
            raise
    log.info("an object of this stream was there, unrecorded: it is replaced", key=key)
    return await patiently(lambda: make(False), what=what)
