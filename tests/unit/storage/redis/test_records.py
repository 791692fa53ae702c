"""Records survive the way to Redis and back, also between versions."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cefmp4.errors import InvariantError
from cefmp4.model.part import Part
from cefmp4.model.stream import FileStamp, Stream, StreamState
from cefmp4.storage.redis.records import (
    decode_part,
    decode_stream,
    decode_views,
    encode_part,
    encode_stream,
    to_text,
)

numbers = st.integers(min_value=0, max_value=2**64 - 1)
paths = st.binary(min_size=1, max_size=40).map(to_text)


@given(paths, st.sampled_from(StreamState), numbers, st.floats(0, 4e9), st.none() | numbers)
def test_streams(path: str, state: StreamState, number: int, at: float, inode: int | None) -> None:
    stream = Stream(
        id="s",
        relpath=path,
        state=state,
        part_base=max(1, number),
        crc64=number,
        updated_at=at,
        stamp=None if inode is None else FileStamp(inode, number, number, number, inode, number),
    )
    assert decode_stream(encode_stream(stream)) == stream


@given(numbers, numbers, st.text(st.characters(codec="utf-8")), st.floats(0, 4e9))
def test_parts(size: int, crc64: int, etag: str, at: float) -> None:
    part = Part(number=7, size=size, crc64=crc64, etag=etag, uploaded_at=at)
    assert decode_part(7, encode_part(part)) == part


def test_a_record_is_compact() -> None:
    assert encode_stream(Stream(id="s", relpath="ä", part_base=1)) == (
        '{"id":"s","relpath":"ä","part_base":1}'.encode()
    )


def test_fields_of_other_versions_are_ignored() -> None:
    record = {"id": "s", "relpath": "a", "part_base": 1, "from_the_future": [1]}
    record |= {"labels": {"from": "the past"}}
    assert decode_stream(json.dumps(record).encode()) == Stream(id="s", relpath="a", part_base=1)


def test_older_versions_read_the_stamp_of_a_file_whose_birth_is_known() -> None:
    stream = Stream(id="s", relpath="a", part_base=1, stamp=FileStamp(1, 2, 3, 4, 5, 6))
    assert json.loads(encode_stream(stream))["stamp"] == [1, 2, 3, 4]


def test_the_stamp_of_an_older_version_knows_no_birth() -> None:
    record = {"id": "s", "relpath": "a", "part_base": 1, "stamp": [1, 2, 3, 4]}
    assert decode_stream(json.dumps(record).encode()).stamp == FileStamp(1, 2, 3, 4, 0, 0)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b"7",
        b'{"id":"s","relpath":"a","part_base":1,"state":"?"}',
        b'{"id":"s","relpath":"\\ud800","part_base":1}',
        b'{"id":"s","relpath":"a","part_base":1,"key":"\\udcff"}',
    ],
)
def test_what_is_no_record(raw: bytes) -> None:
    with pytest.raises(InvariantError):
        decode_stream(raw)


def test_views_of_another_version_are_left_out() -> None:
    assert decode_views(b'[{"id":"s","state":"uploading"}]') == []


@pytest.mark.parametrize(
    "changed",
    [
        {"updated_at": "x"},
        {"updated_at": None},
        {"updated_at": float("nan")},
        {"relpath": 5},
        {"relpath": ["x"]},
        {"upload_id": 5},
        {"key": None},
        {"size": "many"},
        {"size": -1},
        {"sent_high": "x"},
        {"generation": True},
        {"part_base": 0},
        {"part_base": "x"},
        {"stamp": ["a", None, {}, 1]},
        {"stamp": 7},
        {"stamp": [1, 2, 3, 4], "origin": ["x", 1]},
        {"previous_id": 5},
        {"id": "x/../../dir/y"},
        {"id": 7},
    ],
    ids=str,
)
def test_a_record_of_wrong_types_is_none_of_ours(changed: dict[str, object]) -> None:
    record = {"id": "s", "relpath": "a", "part_base": 1} | changed
    with pytest.raises(InvariantError):
        decode_stream(json.dumps(record).encode())
