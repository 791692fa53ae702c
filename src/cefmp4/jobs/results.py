"""Results as objects beside what they tell of, `<kind>/<subject>/result.json`. Not every S3 server
compares before it writes, so the ledger says whose result counts."""

import json

from cefmp4.jobs.ledger import RedisLedger
from cefmp4.model.names import META_STREAM_ID, content_type_of
from cefmp4.ports.results import JobResult
from cefmp4.ports.store import ObjectStore
from cefmp4.recording.digests import crc_of
from cefmp4.retry import patiently

_NAME = "result.json"


class ObjectResults:
    def __init__(self, store: ObjectStore, ledger: RedisLedger) -> None:
        self._store = store
        self._ledger = ledger

    async def accept(self, result: JobResult) -> bool:
        ledger = self._ledger
        job = await patiently(lambda: ledger.find(result.job_id), what="read job")
        if job is None or job.accepted != result.fence:
            return False
        document = json.dumps(result.document, separators=(",", ":"), ensure_ascii=False).encode()
        await self._store.put_object(
            f"{result.kind}/{result.subject}/{_NAME}",
            document,
            content_type=content_type_of(_NAME),
            metadata={META_STREAM_ID: result.subject},
            crc64=crc_of(document),
        )
        return True
