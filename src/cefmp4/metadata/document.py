"""The metadata document: the JSON beside the object, written for people's programs, and read again
by us when Redis was emptied. JSON cannot carry a path that is no valid UTF-8: it is written as
`names.key_safe` spells it, which is how the object's key spells it too."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from cefmp4.model import names
from cefmp4.model.media import MediaInfo
from cefmp4.model.part import Part, PartPlan, infer_plan
from cefmp4.model.stream import StoredStream, Stream, StreamState
from cefmp4.ports.store import ObjectStore
from cefmp4.recording.digests import read_crc64, spell_crc64
from cefmp4.retry import patiently

SCHEMA_VERSION = 1


def build_document(
    stream: Stream,
    parts: Iterable[Part],
    media: MediaInfo,
    *,
    bucket: str,
    watch_dir: str,
    processed_at: float,
) -> bytes:
    """Refuses what other programs could not read: NaN, infinity, halves of surrogate pairs."""
    document = {
        "schema_version": SCHEMA_VERSION,
        "stream_id": stream.id,
        "generation": stream.generation,
        "previous_stream_id": stream.previous_id,
        "original_file_path": path_text(f"{watch_dir.rstrip('/')}/{stream.relpath}"),
        "relative_path": path_text(stream.relpath),
        "watch_folder_id": stream.folder or None,
        "s3_bucket": bucket,
        "s3_key": stream.key,
        "s3_key_prefix": stream.key[: stream.key.rfind("/") + 1],
        "etag": stream.etag,
        "total_size_bytes": stream.size,
        "crc64nvme": spell_crc64(stream.crc64),
        "sha256": stream.sha256 or None,
        "duration_seconds": media.duration_seconds,
        "processed_at_utc": _utc(processed_at),
        "stream_started_at_utc": _utc(stream.started_at),
        "stream_completed_at_utc": _utc(stream.completed_at),
        "playable": media.playable,
        "playable_reason": media.reason or None,
        "container": media.container,
        "bit_rate": media.bit_rate,
        "tracks": [asdict(track) for track in media.tracks],
        "chunks": [_part_entry(part) for part in sorted(parts, key=lambda part: part.number)],
    }
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8") + b"\n"


def path_text(path: str) -> str:
    is_utf8 = not any(0xD800 <= ord(char) <= 0xDFFF for char in path)
    return path if is_utf8 else names.key_safe(path)


async def read_document(store: ObjectStore, key: str, today: PartPlan) -> StoredStream | None:
    """The one beside the object of that key."""
    document_key = names.metadata_key(key)
    return parse_document(
        await patiently(lambda: store.read(document_key), what="metadata reading"), today
    )


def parse_document(data: bytes, today: PartPlan) -> StoredStream | None:
    """The stream as it was described; its path is spelled as `path_text` does. None for whatever is
    no document of ours: anybody may have written to the bucket. `today`: how files are cut now,
    where the parts do not tell how this one was."""
    try:
        found = json.loads(data)
        if found["schema_version"] != SCHEMA_VERSION:
            return None
        return _stored_stream(found, today)
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        return None


def _stored_stream(found: dict[str, Any], today: PartPlan) -> StoredStream:
    size, playable = _natural(found["total_size_bytes"]), found["playable"]
    parts = {part.number: part for part in map(_parse_part, found["chunks"])}
    if parts.keys() != set(range(1, len(found["chunks"]) + 1)):
        raise ValueError("the numbers of the parts have holes")
    if parts and sum(part.size for part in parts.values()) != size:
        raise ValueError("the parts are not the object")
    if not found["stream_id"] or not (playable is None or isinstance(playable, bool)):
        raise ValueError("no stream, or not a verdict")
    previous = found["previous_stream_id"]
    plan = infer_plan(parts.values(), today) or today
    stream = Stream(
        id=_text(found["stream_id"]),
        relpath=_text(found["relative_path"]),
        folder=_text(found.get("watch_folder_id") or ""),  # older versions wrote none
        generation=_natural(found["generation"]),
        previous_id=None if previous is None else _text(previous),
        state=StreamState.DESCRIBED,
        key=_text(found["s3_key"]),
        part_base=plan.base,
        part_sizing=plan.sizing,
        size=size,
        crc64=_parse_crc64(found["crc64nvme"]),
        sha256=_text(found["sha256"] or ""),
        etag=_text(found["etag"]),
        playable=playable,
        started_at=_parse_utc(found["stream_started_at_utc"]),
        completed_at=_parse_utc(found["stream_completed_at_utc"]),
    )
    return StoredStream(stream, parts)


def _part_entry(part: Part) -> dict[str, Any]:
    return {
        "part_number": part.number,
        "size_bytes": part.size,
        "etag": part.etag,
        "crc64nvme": spell_crc64(part.crc64),
        "uploaded_at_utc": _utc(part.uploaded_at),
    }


def _parse_part(entry: dict[str, Any]) -> Part:
    return Part(
        number=_natural(entry["part_number"]),
        size=_natural(entry["size_bytes"]),
        crc64=_parse_crc64(entry["crc64nvme"]),
        etag=_text(entry["etag"]),
        uploaded_at=_parse_utc(entry["uploaded_at_utc"]),
    )


def _utc(moment: float) -> str | None:
    """ISO 8601 with microseconds always, so that the texts sort as the moments do."""
    if not moment:
        return None
    stamp = datetime.fromtimestamp(moment, UTC).isoformat(timespec="microseconds")
    return stamp.replace("+00:00", "Z")


def _parse_utc(text: object) -> float:
    return 0.0 if text is None else datetime.fromisoformat(_text(text)).timestamp()


def _parse_crc64(text: object) -> int:
    crc64 = read_crc64(_text(text))
    if crc64 is None:
        raise ValueError("not a CRC-64")
    return crc64


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def _natural(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError("not a count")
    return value
