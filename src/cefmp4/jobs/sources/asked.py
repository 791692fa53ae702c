"""What others ask for, checked: which object, which kind of job. It comes from tables, queues and
requests, and may be anything."""

import hashlib
import posixpath
import re
from dataclasses import dataclass
from typing import Any

from cefmp4.model.job import (
    MAX_PRIORITY,
    OFFERED_KINDS,
    JobInput,
    JobKind,
    JobSpec,
    offered_kind,
    subject_of,
)

MAX_KEY_BYTES = 1024
MAX_ID_CHARS = 256
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{2,62}")


class NotAJobError(ValueError):
    """What was asked for cannot be a job; the message says why, to whoever asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedJobs:
    """Makes jobs of what is asked for as `{"key": …}`, with `bucket`, `kind`, `priority` and `id`
    where they differ from the usual."""

    bucket: str
    max_attempts: int

    def spec(
        self,
        asked: dict[str, Any],
        *,
        source: str = "",
        subject: str = "",
        tells: tuple[str, ...] = (),
        ref: str = "",
    ) -> JobSpec:
        """`subject` empty: that of the id that is given, or of the object. NotAJobError."""
        wanted = JobInput(
            bucket=_bucket(asked, self.bucket),
            key=_key(asked),
            etag=_text(asked.get("etag")),
            size=_size(asked.get("size")),
        )
        return JobSpec(
            subject=subject or _subject(asked, wanted),
            kind=_kind(asked),
            input=wanted,
            priority=_priority(asked),
            max_attempts=self.max_attempts,
            folder=posixpath.dirname(wanted.key),
            source=source,
            tells=tells,
            ref=ref,
        )


def subject_of_ref(source: str, ref: str) -> str:
    """Of a job that a source knows by `ref`: no caller can take the place of a stream, or choose a
    path."""
    return "w" + hashlib.sha256(repr((source, ref)).encode("utf-8", "replace")).hexdigest()[:20]


def subject_of_id(given: str) -> str:
    """Of a job whose own `id` says which one it is."""
    return "w" + hashlib.sha256(given.encode()).hexdigest()[:20]


def _key(asked: dict[str, Any]) -> str:
    key = asked.get("key")
    if not isinstance(key, str) or not key or not 0 < _length(key) <= MAX_KEY_BYTES:
        raise NotAJobError(f"key must be the name of an object, at most {MAX_KEY_BYTES} bytes")
    return key


def _bucket(asked: dict[str, Any], default: str) -> str:
    bucket = asked.get("bucket") or default
    if not isinstance(bucket, str) or not _BUCKET.fullmatch(bucket):
        raise NotAJobError("bucket must be the name of a bucket")
    return bucket


def _kind(asked: dict[str, Any]) -> JobKind:
    found = offered_kind(asked.get("kind") or JobKind.HLS)
    if found is None:
        raise NotAJobError(
            f"no worker does this kind of job: kind must be {', '.join(OFFERED_KINDS)}"
        )
    return found


def _priority(asked: dict[str, Any]) -> int:
    priority = asked.get("priority") or 0
    is_number = isinstance(priority, int) and not isinstance(priority, bool)
    if not is_number or not -MAX_PRIORITY <= priority <= MAX_PRIORITY:
        raise NotAJobError(f"priority must be a number from -{MAX_PRIORITY} to {MAX_PRIORITY}")
    return int(priority)


def _subject(asked: dict[str, Any], source: JobInput) -> str:
    given = asked.get("id")
    if given is None or given == "":
        return subject_of(source)
    if not isinstance(given, str) or len(given) > MAX_ID_CHARS or not _length(given):
        raise NotAJobError(f"id must be a text of at most {MAX_ID_CHARS} characters")
    return subject_of_id(given)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _size(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _length(text: str) -> int:
    """In bytes; 0 for what is no UTF-8, which JSON can smuggle in."""
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        return 0
