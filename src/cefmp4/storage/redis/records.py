"""How streams, parts and views are written down in Redis. Fields at their default are left out, and
fields of a later version are ignored, so that old and new instances can share one Redis."""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields
from math import isfinite
from typing import Any

from cefmp4.errors import InvariantError
from cefmp4.model.part import Part, PartSizing
from cefmp4.model.stream import FileStamp, Stream, StreamState
from cefmp4.model.view import StreamView

_STREAM_DEFAULTS: dict[str, Any] = {field.name: field.default for field in fields(Stream)}
_STREAM_FIELDS = frozenset(_STREAM_DEFAULTS)
_TEXTS = frozenset(["relpath", "folder", "reason", "key", "upload_id", "sha256", "etag", "host"])
_ASKED_OF_S3 = frozenset(["id", "key", "upload_id", "etag"])
_COUNTS = frozenset(["generation", "part_base", "sent_high", "size", "crc64"])
_MOMENTS = frozenset(["started_at", "closed_at", "completed_at", "updated_at"])
_FLAGS = frozenset({"is_adopted", "playable", "owes_jobs"})
_ORIGIN = "origin"  # birth and device of the file, beside a stamp that older versions can read
_VIEW_FIELDS = frozenset(field.name for field in fields(StreamView))


def to_bytes(text: str) -> bytes:
    """File names that are not UTF-8 keep their bytes."""
    return text.encode("utf-8", "surrogateescape")


def to_text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def encode_stream(stream: Stream) -> bytes:
    """JSON whose strings are raw bytes rather than escapes: the scripts in Redis compare them with
    paths."""
    record = {
        name: value
        for name, default in _STREAM_DEFAULTS.items()
        if (value := getattr(stream, name)) != default
    }
    stamp = stream.stamp
    if stamp is not None:
        record["stamp"] = [stamp.inode, stamp.size, stamp.mtime_ns, stamp.ctime_ns]
        if stamp.birth_ns or stamp.device:
            record[_ORIGIN] = [stamp.birth_ns, stamp.device]
    return to_bytes(json.dumps(record, ensure_ascii=False, separators=(",", ":")))


def decode_stream(raw: bytes) -> Stream:
    """Raises InvariantError for what is no record of ours."""
    try:
        record = json.loads(to_text(raw))
        _check(record)
        origin = record.pop(_ORIGIN, ())
        if not record.keys() <= _STREAM_FIELDS:
            record = {name: value for name, value in record.items() if name in _STREAM_FIELDS}
        if "state" in record:
            record["state"] = StreamState(record["state"])
        if "part_sizing" in record:
            record["part_sizing"] = PartSizing(record["part_sizing"])
        if "stamp" in record:
            record["stamp"] = FileStamp(*record["stamp"], *origin)
        return Stream(**record)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InvariantError(f"a stream record in Redis cannot be read: {error}") from error


def _check(record: dict[str, Any]) -> None:
    """Whoever may write to Redis writes what he likes. An id becomes part of names of files."""
    for name, value in record.items():
        if not _is_fit(name, value):
            raise ValueError(f"{name} is {value!r:.100}")
    if record.get("part_base", 1) < 1 or set("/\0") & set(record.get("id", "")):
        raise ValueError("its id or its part size cannot be used")


def _is_fit(name: str, value: Any) -> bool:
    if name in _TEXTS or name == "id":
        return isinstance(value, str) and (value.isascii() or _has_bytes(name, value))
    if name in _COUNTS:
        return type(value) is int and value >= 0
    if name in _MOMENTS:
        return type(value) in (int, float) and isfinite(value)
    if name in ("stamp", _ORIGIN):
        return isinstance(value, list) and all(type(number) is int for number in value)
    if name in _FLAGS:
        return isinstance(value, bool)
    if name == "previous_id":
        return isinstance(value, str)
    return True


def _has_bytes(name: str, value: str) -> bool:
    """JSON can smuggle in what has none; the name of a file may have such as are no UTF-8."""
    try:
        value.encode("utf-8", "strict" if name in _ASKED_OF_S3 else "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def encode_part(part: Part) -> str:
    return f"{part.size}:{part.crc64:016x}:{part.etag}:{part.uploaded_at!r}"


def decode_part(number: int, text: str) -> Part:
    try:
        size, crc64, rest = text.split(":", 2)
        etag, _, uploaded_at = rest.rpartition(":")
        return Part(
            number=number,
            size=int(size),
            crc64=int(crc64, 16),
            etag=etag,
            uploaded_at=float(uploaded_at),
        )
    except ValueError as error:
        raise InvariantError(f"a part record in Redis cannot be read: {error}") from error


def encode_views(views: list[StreamView]) -> bytes:
    return json.dumps([view.to_fields() for view in views], separators=(",", ":")).encode()


def decode_views(raw: bytes) -> list[StreamView]:
    """What an instance of another version wrote in another shape is left out, not guessed."""
    try:
        return [view for record in json.loads(raw) for view in _decode_view(record)]
    except (ValueError, TypeError, RecursionError):
        return []


def _decode_view(record: Any) -> Iterator[StreamView]:
    if isinstance(record, dict) and record.keys() >= _VIEW_FIELDS:
        known = {name: record[name] for name in _VIEW_FIELDS}
        with suppress(ValueError, TypeError):
            yield StreamView(**known | {"state": StreamState(known["state"])})
