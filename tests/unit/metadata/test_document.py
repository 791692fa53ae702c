"""The document says what users' programs expect, and survives being read back from anywhere."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cefmp4.metadata.document import build_document, parse_document
from cefmp4.model.media import MediaInfo, Track
from cefmp4.model.part import MIB, Part, PartPlan
from cefmp4.model.stream import StoredStream, Stream, StreamState

PLAN = PartPlan(10 * MIB)
STARTED = datetime(2026, 11, 21, 10, 0, 0, tzinfo=UTC).timestamp()
MEDIA = MediaInfo(
    container="mov,mp4,m4a,3gp,3g2,mj2",
    duration_seconds=10.0,
    tracks=(Track(index=0, kind="video", codec="h264", width=1920, height=1080, frame_rate=29.97),),
    playable=True,
)
PARTS = [
    Part(number=2, size=3, crc64=2**64 - 1, etag="two", uploaded_at=STARTED + 2),
    Part(number=1, size=10 * MIB, crc64=1, etag="one", uploaded_at=STARTED + 1),
]


def stream(relpath: str = "cam1/a.mp4") -> Stream:
    return Stream(
        id="20261121T100000Z-0a1b2c3d",
        relpath=relpath,
        generation=2,
        previous_id="20261121T090000Z-0a1b2c3d",
        state=StreamState.STORED,
        key="streams/20261121T100000Z-0a1b2c3d/a.mp4",
        part_base=10 * MIB,
        size=10 * MIB + 3,
        crc64=0x0102030405060708,
        sha256="ab" * 32,
        etag="whole-2",
        started_at=STARTED,
        completed_at=STARTED + 3.5,
    )


def document(relpath: str = "cam1/a.mp4", watch_dir: str = "/watch") -> bytes:
    return build_document(
        stream(relpath),
        PARTS,
        MEDIA,
        bucket="recordings",
        watch_dir=watch_dir,
        processed_at=STARTED + 4,
    )


def test_the_fields_users_know() -> None:
    found = json.loads(document())
    known = {name: found[name] for name in _KNOWN}
    assert known == _KNOWN
    assert found["chunks"] == [
        {
            "part_number": 1,
            "size_bytes": 10 * MIB,
            "etag": "one",
            "crc64nvme": "AAAAAAAAAAE=",
            "uploaded_at_utc": "2026-11-21T10:00:01.000000Z",
        },
        {
            "part_number": 2,
            "size_bytes": 3,
            "etag": "two",
            "crc64nvme": "//////////8=",
            "uploaded_at_utc": "2026-11-21T10:00:02.000000Z",
        },
    ]
    assert found["tracks"][0]["codec"] == "h264"


_KNOWN = {
    "schema_version": 1,
    "stream_id": "20261121T100000Z-0a1b2c3d",
    "generation": 2,
    "previous_stream_id": "20261121T090000Z-0a1b2c3d",
    "original_file_path": "/watch/cam1/a.mp4",
    "s3_bucket": "recordings",
    "s3_key": "streams/20261121T100000Z-0a1b2c3d/a.mp4",
    "s3_key_prefix": "streams/20261121T100000Z-0a1b2c3d/",
    "etag": "whole-2",
    "total_size_bytes": 10 * MIB + 3,
    "duration_seconds": 10.0,
    "processed_at_utc": "2026-11-21T10:00:04.000000Z",
    "stream_started_at_utc": "2026-11-21T10:00:00.000000Z",
    "stream_completed_at_utc": "2026-11-21T10:00:03.500000Z",
    "sha256": "ab" * 32,
    "crc64nvme": "AQIDBAUGBwg=",
    "playable": True,
    "playable_reason": None,
    "container": "mov,mp4,m4a,3gp,3g2,mj2",
}


@pytest.mark.parametrize(
    ("relpath", "shown"),
    [
        ("ö ☃\n'\".mp4", "/watch/ö ☃\n'\".mp4"),
        ("caf\udce9.mp4", "/watch/caf%E9.mp4"),
        ("100%.mp4", "/watch/100%.mp4"),
    ],
)
def test_any_name_gives_valid_json(relpath: str, shown: str) -> None:
    assert json.loads(document(relpath).decode("utf-8"))["original_file_path"] == shown


def test_the_root_folder_gets_no_second_slash() -> None:
    assert json.loads(document(watch_dir="/"))["original_file_path"] == "/cam1/a.mp4"


def test_a_key_without_a_folder_has_an_empty_prefix() -> None:
    flat = replace(stream(), key="a.mp4")
    built = json.loads(
        build_document(flat, [], MediaInfo(), bucket="b", watch_dir="/w", processed_at=1)
    )
    assert built["s3_key_prefix"] == ""
    assert built["chunks"] == []
    assert built["playable"] is None


def test_what_was_written_is_read_back() -> None:
    described = replace(stream(), state=StreamState.DESCRIBED, playable=True)
    parts = {part.number: part for part in PARTS}
    assert parse_document(document(), PartPlan(5 * MIB)) == StoredStream(described, parts)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("schema_version", 99),
        ("stream_id", None),
        ("stream_id", ""),
        ("total_size_bytes", -1),
        ("total_size_bytes", True),
        ("total_size_bytes", 1),  # not what the parts add up to
        ("crc64nvme", "AAAA"),
        ("crc64nvme", "not base64"),
        ("chunks", {"a": 1}),
        ("chunks", [1]),
        ("chunks", None),
        ("playable", "yes"),
        ("stream_started_at_utc", "yesterday"),
        ("s3_key", 7),
    ],
)
def test_a_wrong_field_makes_it_no_document(field: str, value: object) -> None:
    found = json.loads(document())
    found[field] = value
    assert parse_document(json.dumps(found).encode(), PLAN) is None


@pytest.mark.parametrize(
    "data", [b"", b"null", b"[]", b"{}", b'"x"', b"\xff\xfe", b"[" * 100_000, b"1" * 10_000]
)
def test_foreign_bytes_are_no_document(data: bytes) -> None:
    assert parse_document(data, PLAN) is None


@given(st.binary(max_size=200))
def test_noise_is_no_document(data: bytes) -> None:
    assert parse_document(data, PLAN) is None


@given(st.integers(0, 5000), st.integers(0, 255))
def test_a_damaged_document_never_raises(at: int, byte: int) -> None:
    data = bytearray(document())
    data[at % len(data)] = byte
    parse_document(bytes(data), PLAN)


def test_not_a_number_is_refused_not_written() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        build_document(
            stream(),
            [],
            MediaInfo(duration_seconds=float("nan")),
            bucket="b",
            watch_dir="/w",
            processed_at=1,
        )
