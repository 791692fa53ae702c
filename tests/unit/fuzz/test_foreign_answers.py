"""More of what others write: templates, jobs, job orders, mount tables, listings, checksums, and
ffprobe's answers for an encode. Whatever comes, it is understood or refused with our own error."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from temporalio.api.common.v1 import Payload
from temporalio.converter import WorkflowSerializationContext
from temporalio.exceptions import ApplicationError
from tests.fake_ffprobe import FakeFfprobe

from cefmp4.app.engine import NoJobs
from cefmp4.config.settings import Settings
from cefmp4.errors import CefError
from cefmp4.hls.examined import examine
from cefmp4.jobs.flow import Answer
from cefmp4.jobs.webhook_signatures import headers_for, sign_hex
from cefmp4.media.ffmpeg_run import Pace
from cefmp4.media.source import MediaSource
from cefmp4.media.stderr import Stderr
from cefmp4.model import names
from cefmp4.model.job import JobSpec
from cefmp4.recording.digests import multipart_etag, read_crc64, read_hex_crc64
from cefmp4.storage.s3.listing import list_objects, list_parts, list_uploads
from cefmp4.temporal.signing import NO_ANSWER, data_converter
from cefmp4.web.webhook import Webhook

EXAMPLES = settings(max_examples=150, deadline=None)
DEEP = b"[" * 100_000

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner),
    max_leaves=12,
)

pieces = st.sampled_from(
    [
        *(
            "{stream_id}",
            "{filename}",
            "{relpath}",
            "{stem}",
            "{host}",
            "{date}",
            "{date:%Y/%m/%d}",
        ),
        *("{date:{host}}", "{date!r}", "{stem!s}", "{stem[0]}", "{host.x}", "{}", "{0}", "{{", "}"),
        *("streams/", "/", "..", "%", " "),
    ]
)
templates = st.lists(pieces | st.text(max_size=4), max_size=6).map("".join)


@EXAMPLES
@given(templates, st.text(max_size=40), st.binary(min_size=1, max_size=60))
@example("{stem}{date:{nothing}}", "h", b"a.mp4")
@example("{stem}{date!z}", "h", b"a.mp4")
@example("{stem}\ud800", "h", b"a.mp4")
@example("{stem}\x00", "h", b"a.mp4")
def test_a_template_that_is_taken_makes_keys(template: str, host: str, raw: bytes) -> None:
    try:
        names.check_key_template(template)
    except ValueError:
        return
    relpath = raw.replace(b"\0", b"").decode("utf-8", "surrogateescape").strip("/") or "a.mp4"
    key = names.object_key(template, stream_id="id", relpath=relpath, started_at=1.0, host=host)
    assert 0 < len(names.metadata_key(key).encode()) <= 1024
    assert key.isprintable()


@EXAMPLES
@given(st.dictionaries(st.text(max_size=20), st.binary(max_size=60)), st.binary(max_size=200))
@example({"encoding": b"json/plain"}, b'{"step": "publish", "attempt": "a1", "summary": {}}')
@example({"encoding": b"json/plain", "cefmp4-hmac-sha256": b"0" * 64}, b"{}")
@example({"encoding": b"cefmp4/refused"}, b"\xff")
def test_any_payload_of_others_in_the_engine(metadata: dict[str, bytes], data: bytes) -> None:
    job = WorkflowSerializationContext(namespace="default", workflow_id="s-hls")
    converter = data_converter(b"a key that they do not have").with_context(job)
    payload = Payload(metadata=metadata, data=data)
    assert asyncio.run(converter.decode([payload], [Answer])) == [NO_ANSWER]
    with pytest.raises(ApplicationError, match="not signed by us"):
        asyncio.run(converter.decode([payload], [JobSpec]))


class Order:
    """As much of a request as the webhook looks at."""

    content_type = "application/json"

    def __init__(self, body: bytes, headers: dict[str, str]) -> None:
        self.headers = headers
        self._body = body

    async def read(self) -> bytes:
        return self._body


orders = (
    st.binary(max_size=80)
    | json_values.map(lambda value: json.dumps(value).encode())
    | st.dictionaries(st.sampled_from(["key", "bucket", "kind", "id"]), json_values).map(
        lambda asked: json.dumps({"key": "a.mp4"} | asked).encode()
    )
)


# What the HTTP library makes of header bytes.
header_texts = st.binary(max_size=70).map(lambda raw: raw.decode("utf-8", "surrogateescape"))


class Taking(NoJobs):
    def __init__(self) -> None:
        self.taken: list[JobSpec] = []

    async def submit(self, spec: JobSpec) -> bool:
        self.taken.append(spec)
        return True


async def _order(body: bytes, headers: dict[str, str]) -> list[JobSpec]:
    desk = Taking()
    taken = desk.taken
    asked_for = Settings(webhook_secret=SecretStr("s" * 16), s3_bucket_name="bucket")
    hook = Webhook(asked_for, desk, clock=lambda: 1000.0)
    request: Any = Order(body, headers)
    try:
        reply = await hook.take(request)
    except web.HTTPClientError:
        assert not taken
    else:
        assert reply.status == 202
    return taken


@EXAMPLES
@given(orders)
@example(DEEP)
@example(b'{"key": "\\ud800"}')
@example(b'{"key": "a", "kind": ["hls"]}')
@example(b'{"key": "a", "kind": {"a": 1}}')
def test_any_signed_order(body: bytes) -> None:
    old = {"X-Timestamp": "1000", "X-Signature": sign_hex("s" * 16, "1000", body)}
    for spec in asyncio.run(_order(body, old)):
        assert spec.input.key
        assert asyncio.run(data_converter(b"a key of ours").encode([spec]))


@EXAMPLES
@given(orders, header_texts, header_texts)
@example(b"{}", "\u0661" * 4, "")
@example(b"{}", "1000", "\udcff")
def test_no_order_without_the_right_signature(body: bytes, timestamp: str, signature: str) -> None:
    old = {"X-Timestamp": timestamp, "X-Signature": signature}
    assert asyncio.run(_order(body, old)) == []
    new = {"webhook-id": "m", "webhook-timestamp": timestamp, "webhook-signature": signature}
    assert asyncio.run(_order(body, new)) == []


@EXAMPLES
@given(orders, header_texts)
@example(b"{}", "")
@example(b'{"key": "a.mp4"}', "\udcff")
def test_any_id_of_a_signed_message(body: bytes, message_id: str) -> None:
    for spec in asyncio.run(_order(body, headers_for("s" * 16, message_id, 1000, body))):
        assert spec.subject.isalnum()
        assert asyncio.run(data_converter(b"a key of ours").encode([spec]))


@EXAMPLES
@given(st.none() | st.text(max_size=24) | st.binary(max_size=24).map(lambda raw: raw.hex()))
@example("\u0663" * 16)
@example("-" + "1" * 15)
@example("AAAAAAAAAAA=-3")
def test_any_checksum(text: str | None) -> None:
    for crc64 in (read_crc64(text), read_hex_crc64(text)):
        assert crc64 is None or 0 <= crc64 < 2**64
    with suppress(ValueError):
        multipart_etag([text or ""])


parts = st.fixed_dictionaries(
    {},
    optional={
        "PartNumber": st.integers(0, 5),
        "Size": st.integers(0, 9),
        "ETag": st.text(max_size=4),
    },
)
things = st.fixed_dictionaries(
    {},
    optional={
        "Key": st.text(max_size=4),
        "Size": st.integers(0, 9),
        "ETag": st.text(max_size=4),
        "UploadId": st.text(max_size=4),
        "LastModified": st.just(datetime(2026, 1, 1, tzinfo=UTC)),
        "Initiated": st.just(datetime(2026, 1, 1, tzinfo=UTC)),
    },
)
pages = st.fixed_dictionaries(
    {},
    optional={
        "Parts": st.lists(parts, max_size=3),
        "Contents": st.lists(things, max_size=3),
        "Uploads": st.lists(things, max_size=3),
        "IsTruncated": st.booleans(),
        "NextKeyMarker": st.text(max_size=2),
        "NextUploadIdMarker": st.text(max_size=2),
        "NextContinuationToken": st.text(max_size=2),
    },
)


async def _listed(listing: Callable[[Any], AsyncIterator[Any]], answers: list[Any]) -> None:
    left = iter(answers)

    async def call(_operation: str, **_params: Any) -> Any:
        return next(left, {})

    try:
        async with asyncio.timeout(5):
            async for _ in listing(SimpleNamespace(call=call)):
                pass
    except CefError:
        pass


@EXAMPLES
@given(st.lists(pages, max_size=4))
def test_any_listing(answers: list[Any]) -> None:
    """What botocore makes of an answer has the right types; anything may be missing in it."""

    async def all_parts(calls: Any) -> AsyncIterator[Any]:
        yield await list_parts(calls, "k", "u")

    async def all_uploads(calls: Any) -> AsyncIterator[Any]:
        yield await list_uploads(calls, "")

    for listing in (all_parts, all_uploads, lambda calls: list_objects(calls, "")):
        asyncio.run(_listed(listing, answers))


track = st.fixed_dictionaries(
    {"codec_type": st.sampled_from(["video", "audio"]) | json_values},
    optional={
        name: json_values | st.sampled_from(["1/0", "25/1", "-1", "1e400", "nan", "9" * 5000])
        for name in (
            *("index", "width", "height", "sample_aspect_ratio", "avg_frame_rate", "channels"),
            *("r_frame_rate", "start_time", "duration", "tags", "disposition", "side_data_list"),
            *("color_transfer", "field_order", "pix_fmt", "codec_name", "profile"),
        )
    },
)
answers = st.fixed_dictionaries(
    {
        "streams": st.lists(track | json_values, max_size=3) | json_values,
        "format": st.fixed_dictionaries(
            {}, optional={"duration": json_values, "start_time": json_values}
        )
        | json_values,
    },
    optional={"packets": json_values, "frames": json_values},
)


async def _examined(answer: Any) -> None:
    with suppress(CefError):
        await examine(
            MediaSource(url="http://127.0.0.1/"),
            FakeFfprobe(header=answer, frame=answer, last=answer),
        )


@EXAMPLES
@given(answers)
@example({"streams": 7})
@example({"streams": [{"codec_type": "video", "width": 9, "height": 9, "field_order": []}]})
@example({"streams": [{"codec_type": "video", "width": 64, "height": 48}], "packets": 7})
@example(
    {
        "streams": [
            {"codec_type": "video", "width": 64, "height": 48, "color_transfer": "smpte2084"}
        ],
        "format": {"duration": "1"},
        "frames": 7,
    }
)
def test_any_answer_of_ffprobe_for_an_encode(answer: Any) -> None:
    asyncio.run(_examined(answer))


@EXAMPLES
@given(st.lists(st.binary(max_size=40), max_size=6), st.text(max_size=12), st.text(max_size=12))
@example([], "out_time_us", "9" * 5000)
@example([], "out_time_us", "nan")
@example([], "speed", "1e400x")
def test_anything_that_ffmpeg_says(said: list[bytes], key: str, value: str) -> None:
    complaints = Stderr()
    for data in said:
        complaints.add(data)
    pace = Pace()
    pace.take(key, value, 1.0)
    assert pace.out_time_s >= 0
