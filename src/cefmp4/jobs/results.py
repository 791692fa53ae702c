"""Results as objects beside what they tell of, `<kind>/<subject>/result.json`."""

import json

from cefmp4.model.names import META_STREAM_ID, content_type_of
from cefmp4.ports.results import JobResult
from cefmp4.ports.store import ObjectStore
from cefmp4.recording.digests import crc_of

_NAME = "result.json"


class ObjectResults:
    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def keep(self, result: JobResult) -> None:
        document = json.dumps(result.document, separators=(",", ":"), ensure_ascii=False).encode()
        await self._store.put_object(
            f"{result.kind}/{result.subject}/{_NAME}",
            document,
            content_type=content_type_of(_NAME),
            metadata={META_STREAM_ID: result.subject},
            crc64=crc_of(document),
        )
