"""What is told to whoever listens at WEBHOOK_URL, and under which id: the same of the same event,
however often it is sent."""

import hashlib
import json
import math
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from cefmp4.log import redact, redact_all
from cefmp4.metadata.document import path_text
from cefmp4.model import names
from cefmp4.model.callback import MessageType
from cefmp4.model.job import JobEnd, JobInput, JobKind, JobSpec, spec_of_stream
from cefmp4.model.stream import Stream
from cefmp4.recording.digests import spell_crc64

MOST_TRIES = 170  # a week at least: those that nobody answers come first, and are not counted
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    id: str
    type: MessageType
    at: float  # when it happened; when it is sent is in a header
    data: dict[str, Any] = field(repr=False)

    @property
    def body(self) -> bytes:
        """Fit for any parser of JSON."""
        told = {"type": self.type, "timestamp": _utc(self.at), "data": _plain(self.data)}
        return json.dumps(told, separators=(",", ":"), allow_nan=False).encode()


def message_of_end(end: JobEnd) -> Message:
    """A job that was begun again ends another time, and that is told for itself."""
    spec = end.spec
    return Message(
        id=_id_of(spec.id, end.at),
        type=MessageType.COMPLETED if end.is_complete else MessageType.FAILED,
        at=end.at,
        data={
            "job_id": spec.id,
            "kind": spec.kind,
            "subject": spec.subject,
            "ref": spec.ref,
            "input": _input(spec.input),
            "state": end.state,
            "reason": end.reason,
            "error": redact(end.error),
            "attempts": end.attempts,
            "result": redact_all(end.result),
        },
    )


def spec_of_stored(stream: Stream, *, bucket: str, watch_dir: str) -> JobSpec:
    """The job that tells of a recording whose object is proven."""
    return spec_of_stream(
        stream,
        kind=JobKind.CALLBACK,
        bucket=bucket,
        watch_dir=watch_dir,
        max_attempts=MOST_TRIES,
        params={
            "path": path_text(stream.relpath),
            "generation": str(stream.generation),
            "sha256": stream.sha256,
            "playable": json.dumps(stream.playable),
            "completed_at": repr(stream.completed_at),
        },
    )


def message_of_stored(spec: JobSpec) -> Message:
    """Of what `spec_of_stored` wrote down."""
    source, params = spec.input, spec.params
    return Message(
        id=_id_of(spec.id),
        type=MessageType.STORED,
        at=float(params["completed_at"]),
        data={
            "stream_id": spec.subject,
            "path": params["path"],
            "generation": int(params["generation"]),
            "bucket": source.bucket,
            "key": source.key,
            "metadata_key": names.metadata_key(source.key),
            "size": source.size,
            "etag": source.etag,
            "sha256": params["sha256"] or None,
            "crc64nvme": spell_crc64(source.crc64),
            "playable": json.loads(params["playable"]),
        },
    )


def _input(source: JobInput) -> dict[str, Any]:
    return {
        "bucket": source.bucket,
        "key": source.key,
        "path": path_text(source.path),
        "size": source.size,
        "etag": source.etag,
    }


def _id_of(*facts: object) -> str:
    return "msg_" + hashlib.sha256(repr(facts).encode("utf-8", "replace")).hexdigest()[:32]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {_plain(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", value) if isinstance(value, str) else value


def _utc(moment: float) -> str:
    stamp = datetime.fromtimestamp(moment, UTC).isoformat(timespec="microseconds")
    return stamp.replace("+00:00", "Z")
