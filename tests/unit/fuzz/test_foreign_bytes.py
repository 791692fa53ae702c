"""Every parser of bytes that others wrote: whatever comes, it answers or says that it cannot."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cefmp4.errors import CefError, InvariantError
from cefmp4.ingest.writer_profile import WriterProfiles
from cefmp4.media.ffprobe import document_of
from cefmp4.media.probe import parse_header, parse_tail
from cefmp4.media.source import UnusableSourceError
from cefmp4.media.structure import find_problem
from cefmp4.metadata.document import build_document, parse_document
from cefmp4.model.media import MediaInfo
from cefmp4.model.part import MIB, PartPlan
from cefmp4.model.stream import Stream
from cefmp4.storage.redis.owner import is_dead
from cefmp4.storage.redis.records import decode_part, decode_stream, decode_views, encode_stream
from cefmp4.storage.s3.errors import refusal_from_reply, to_error

EXAMPLES = settings(max_examples=150, deadline=None)
DEEP = b"[" * 100_000

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner),
    max_leaves=12,
)


@contextmanager
def _file_of(data: bytes) -> Iterator[int]:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        yield file.fileno()


ATOMS = st.sampled_from([b"ftyp", b"moov", b"moof", b"mdat", b"free", b"sidx", b"\0\0\0\0"])
SIZES = st.sampled_from([0, 1, 7, 8, 9, 16, 2**31, 2**32 - 1]) | st.integers(0, 64)
atom = st.builds(
    lambda size, kind, body: size.to_bytes(4, "big") + kind + body, SIZES, ATOMS, st.binary()
)
media = st.one_of(
    st.binary(max_size=300),
    st.lists(atom, max_size=6).map(b"".join),
    st.binary(max_size=60).map(lambda rest: b"\x1aE\xdf\xa3" + rest),
    st.binary(max_size=60).map(lambda rest: b"RIFF" + rest),
)


@EXAMPLES
@given(media)
def test_structure_of_any_file(data: bytes) -> None:
    with _file_of(data) as fd:
        assert isinstance(find_problem(fd), str)
        assert os.lseek(fd, 0, os.SEEK_CUR) == len(data)


probe_answers = st.one_of(
    st.binary(max_size=200),
    json_values.map(lambda value: json.dumps(value).encode()),
    st.fixed_dictionaries(
        {"format": json_values, "streams": st.lists(json_values, max_size=3)},
        optional={"packets": json_values},
    ).map(lambda value: json.dumps(value).encode()),
    st.dictionaries(
        st.sampled_from(["index", "codec_type", "width", "avg_frame_rate", "tags", "duration"]),
        json_values,
    ).map(lambda track: json.dumps({"streams": [track], "packets": [track]}).encode()),
)


@EXAMPLES
@given(probe_answers)
@example(DEEP)
@example(b'{"streams": [{"avg_frame_rate": "1e308/1e-308", "codec_type": "video"}]}')
@example(b'{"streams": [{"width": 1e400}], "format": {"duration": "1' + b"0" * 5000 + b'"}}')
def test_any_answer_of_ffprobe(answer: bytes) -> None:
    try:
        document = document_of(answer)
    except UnusableSourceError:
        return
    media = parse_header(document)
    assert isinstance(media, MediaInfo)
    seen, seconds = parse_tail(document)
    assert isinstance(seen, bool)
    assert seconds is None or seconds > 0
    # what was understood can be written down
    stream = Stream(id="x", relpath="r.mp4", part_base=1)
    build_document(stream, [], media, bucket="b", watch_dir="/w", processed_at=1.0)


def _true_document() -> dict[str, Any]:
    stream = Stream(id="x", relpath="r.mp4", part_base=1, size=3)
    found: dict[str, Any] = json.loads(
        build_document(stream, [], MediaInfo(), bucket="b", watch_dir="/w", processed_at=1.0)
    )
    return found


TRUE_DOCUMENT = _true_document()
documents = st.one_of(
    st.binary(max_size=200),
    json_values.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(st.sampled_from(sorted(TRUE_DOCUMENT)), json_values).map(
        lambda changes: json.dumps(TRUE_DOCUMENT | changes).encode()
    ),
    st.dictionaries(
        st.sampled_from(["part_number", "size_bytes", "etag", "crc64nvme", "uploaded_at_utc"]),
        json_values,
    ).map(lambda part: json.dumps(TRUE_DOCUMENT | {"chunks": [part]}).encode()),
)


@EXAMPLES
@given(documents)
@example(DEEP)
@example(json.dumps(TRUE_DOCUMENT | {"stream_started_at_utc": "0001-01-01"}).encode())
@example(json.dumps(TRUE_DOCUMENT | {"total_size_bytes": 10**400}).encode())
@example(b'{"schema_version": 1, "total_size_bytes": ' + b"9" * 5000 + b"}")
def test_any_document_in_the_bucket(data: bytes) -> None:
    found = parse_document(data, PartPlan(5 * MIB))
    assert found is None or found.stream.size >= 0


TRUE_RECORD = json.loads(encode_stream(Stream(id="x", relpath="r.mp4", part_base=5)))
records = st.one_of(
    st.binary(max_size=100),
    json_values.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(
        st.sampled_from([*TRUE_RECORD, "state", "stamp", "part_sizing", "labels", "later"]),
        json_values,
    ).map(lambda changes: json.dumps(TRUE_RECORD | changes).encode()),
)


@EXAMPLES
@given(records)
@example(DEEP)
def test_any_stream_record(raw: bytes) -> None:
    with suppress(InvariantError):
        assert isinstance(decode_stream(raw), Stream)


@EXAMPLES
@given(st.integers(1, 10_000), st.text(max_size=60))
@example(1, "5:" + "f" * 17 + ":e:1.0")
@example(1, "1" * 5000 + ":0:e:1.0")
def test_any_part_record(number: int, text: str) -> None:
    with suppress(InvariantError):
        decode_part(number, text)


@EXAMPLES
@given(records | json_values.map(lambda value: json.dumps([value]).encode()))
@example(DEEP)
@example(b"[1]")
@example(b"{}")
def test_any_views_of_another_instance(raw: bytes) -> None:
    assert isinstance(decode_views(raw), list)


codes = st.sampled_from(
    ["SlowDown", "NoSuchUpload", "NoSuchKey", "InvalidPart", "AccessDenied", "Strange", ""]
)
bodies = st.one_of(
    st.binary(max_size=200),
    codes.map(lambda code: f"<Error><Code>{code}</Code><Message/></Error>".encode()),
)
operations = st.sampled_from(["UploadPart", "CompleteMultipartUpload", "HeadObject", "PutObject"])


@EXAMPLES
@given(operations, st.integers(100, 999), st.text(max_size=8), bodies)
@example("UploadPart", 503, "\u00b2", b"")
@example("UploadPart", 503, "9" * 400, b"")
@example("UploadPart", 500, "", b"<?xml version='1.0' encoding='gbk'?><Error/>")
@example("UploadPart", 500, "", b"<?xml version='1.0' encoding='rot13'?><Error/>")
@example("UploadPart", 500, "", b"<a>" * 20_000)
def test_any_refusal_of_a_server(
    operation: str, status: int, retry_after: str, body: bytes
) -> None:
    refusal = refusal_from_reply(operation, status, {"Retry-After": retry_after}, body)
    assert isinstance(to_error(refusal), CefError)
    assert refusal.retry_after_s >= 0


@EXAMPLES
@given(st.text(max_size=80))
def test_any_owner_of_a_lease_may_be_alive(owner: str) -> None:
    assert isinstance(is_dead(owner), bool)


@pytest.mark.parametrize("pid", ["0", "-1", "9" * 30, "\u0663", ""])
def test_strange_process_ids(pid: str) -> None:
    from cefmp4.storage.redis.owner import owner_id

    host, boot, namespace, _, started = owner_id("h").rsplit("|", 4)
    assert isinstance(is_dead("|".join((host, boot, namespace, pid, started))), bool)


@EXAMPLES
@given(st.text(max_size=80) | json_values.map(json.dumps))
@example(DEEP.decode())
@example('{"a|.mp4": {"lag": 1e999, "waits": 0}}')
def test_any_remembered_habits(text: str) -> None:
    writer_profiles = WriterProfiles()
    writer_profiles.load_json(text)
    assert writer_profiles.lag_for("a.mp4") > 0
    json.loads(writer_profiles.to_json())
