"""Results as objects, `<kind>/<subject>/result.json` below a prefix."""

import json

from cefmp4.model.names import META_STREAM_ID, content_type_of
from cefmp4.ports.results import JobResult
from cefmp4.ports.store import ObjectStore
from cefmp4.recording.digests import crc_of

_NAME = "result.json"
ATTEMPT, ACCEPTED_AT = "attempt", "accepted_at"  # in the document


class ObjectResults:
    def __init__(self, store: ObjectStore, *, bucket: str, prefix: str = "") -> None:
        self._store = store
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""

    def __repr__(self) -> str:
        return f"<ObjectResults s3://{self._bucket}/{self._prefix}>"

    async def keep(self, result: JobResult) -> str:
        key = f"{self._prefix}{result.kind}/{result.subject}/{_NAME}"
        if await self._accepted_at(key) < result.accepted_at:
            told = {ATTEMPT: result.attempt, ACCEPTED_AT: result.accepted_at}
            document = result.document | told
            data = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
            await self._store.put_object(
                key,
                data,
                content_type=content_type_of(_NAME),
                metadata={META_STREAM_ID: result.subject},
                crc64=crc_of(data),
            )
        return f"s3://{self._bucket}/{key}"

    async def _accepted_at(self, key: str) -> float:
        """Of what lies there; 0 where that says nothing, less where it is none of ours."""
        if await self._store.head(key) is None:
            return -1.0
        try:
            document = json.loads(await self._store.read(key))
            return float(document.get(ACCEPTED_AT, 0.0))
        except (ValueError, TypeError, AttributeError, RecursionError):
            return -1.0
