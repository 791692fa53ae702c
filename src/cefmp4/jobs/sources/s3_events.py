"""What a message of a queue says: a job that somebody asks for, or new objects, in one of the
shapes in which S3 tells of them. Pure; messages come from others, and may be anything."""

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

from cefmp4.jobs.sources.asked import MAX_ID_CHARS, MAX_KEY_BYTES, NotAJobError

MOST_OBJECTS = 100  # in one message; S3 itself puts one into it
_MOST_WRAPPERS = 3  # SNS around an event; what is deeper is no event of S3
_MOST_BYTES = 2**63
_ASKED = ("key", "bucket", "kind", "priority", "etag", "size")


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedJob:
    """`id`: the same again is the same job. Empty: none was given."""

    fields: dict[str, Any]
    id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewObject:
    """`sequencer`: different for each time that something was stored under the key."""

    bucket: str
    key: str
    etag: str = ""
    size: int = 0
    sequencer: str = ""

    @property
    def fields(self) -> dict[str, Any]:
        return {"bucket": self.bucket, "key": self.key, "etag": self.etag, "size": self.size}

    @property
    def id(self) -> str:
        """S3 may tell of it twice. Empty where that cannot be told from another upload."""
        if not self.sequencer:
            return ""
        return f"s3://{self.bucket}/{self.key} {self.etag} {self.sequencer}"


Said = AskedJob | tuple[NewObject, ...]


def read_message(body: str) -> Said:
    """Raises NotAJobError. No objects: an event that is no matter of ours."""
    said = _read_object(body)
    for _ in range(_MOST_WRAPPERS):
        if not _is_wrapped(said):
            break
        said = _read_object(said["Message"])
    if "Records" in said:
        return _objects_of_records(said["Records"])
    if said.get("source") == "aws.s3" and "detail-type" in said:
        return _objects_of_event_bridge(said)
    if said.get("Event") == "s3:TestEvent":
        return ()
    if "key" in said:
        return _asked_job(said)
    if said.get("Type") == "SubscriptionConfirmation":
        raise NotAJobError("SNS waits for the subscription to be confirmed: open its SubscribeURL")
    raise NotAJobError('it is neither an event of S3 nor a job such as {"key": "a/b.mp4"}')


def _is_wrapped(said: dict[str, Any]) -> bool:
    return said.get("Type") == "Notification" and isinstance(said.get("Message"), str)


def _read_object(text: str) -> dict[str, Any]:
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        raise NotAJobError("it is no JSON") from None
    if not isinstance(said, dict):
        raise NotAJobError("it is no JSON object")
    return said


def _asked_job(said: dict[str, Any]) -> AskedJob:
    given = said.get("id")
    if given is None:
        given = ""
    if not isinstance(given, str) or len(given) > MAX_ID_CHARS or not _is_utf8(given):
        raise NotAJobError(f"id must be a text of at most {MAX_ID_CHARS} characters")
    return AskedJob(fields={name: said[name] for name in _ASKED if name in said}, id=given)


def _objects_of_records(records: object) -> tuple[NewObject, ...]:
    if not isinstance(records, list):
        raise NotAJobError("its Records are no list")
    if len(records) > MOST_OBJECTS:
        raise NotAJobError(f"it has more than {MOST_OBJECTS} records")
    found = (_object_of_record(record) for record in records)
    return tuple(one for one in found if one is not None)


def _object_of_record(record: object) -> NewObject | None:
    """None: it tells of something else than a new object."""
    name = _inside(record, "eventName")
    if not isinstance(name, str) or not isinstance(_inside(record, "s3"), dict):
        raise NotAJobError("a record of it is no event of S3")
    if not name.removeprefix("s3:").startswith("ObjectCreated:"):
        return None
    key = _inside(record, "s3", "object", "key")
    try:
        decoded = unquote_plus(key, errors="strict") if isinstance(key, str) else key
    except UnicodeDecodeError:
        raise NotAJobError("the key of its object is no UTF-8") from None
    return _new_object(
        bucket=_inside(record, "s3", "bucket", "name"),
        key=decoded,
        facts=_inside(record, "s3", "object"),
    )


def _objects_of_event_bridge(said: dict[str, Any]) -> tuple[NewObject, ...]:
    """Their keys are not encoded, unlike those of the other shapes."""
    if said["detail-type"] != "Object Created":
        return ()
    return (
        _new_object(
            bucket=_inside(said, "detail", "bucket", "name"),
            key=_inside(said, "detail", "object", "key"),
            facts=_inside(said, "detail", "object"),
        ),
    )


def _new_object(*, bucket: object, key: object, facts: object) -> NewObject:
    if not isinstance(bucket, str) or not isinstance(key, str):
        raise NotAJobError("it names no object")
    if not key or not _is_utf8(key) or len(key.encode()) > MAX_KEY_BYTES:
        raise NotAJobError(f"the key of its object must have 1 to {MAX_KEY_BYTES} bytes of UTF-8")
    return NewObject(
        bucket=bucket,
        key=key,
        etag=_text(_inside(facts, "eTag") or _inside(facts, "etag")).strip('"'),
        size=_size(_inside(facts, "size")),
        sequencer=_text(_inside(facts, "sequencer")),
    )


def _inside(said: object, *path: str) -> object:
    """None where nothing is there."""
    for name in path:
        said = said.get(name) if isinstance(said, dict) else None
    return said


def _text(value: object) -> str:
    return value if isinstance(value, str) and _is_utf8(value) else ""


def _size(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        return 0
    return value if 0 < value < _MOST_BYTES else 0


def _is_utf8(text: str) -> bool:
    """JSON can smuggle in what is none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
