"""What messages say: each shape in which S3 tells of new objects, jobs that are asked for, and what
is neither, of which nothing but NotAJobError ever comes."""

import json
from contextlib import suppress
from typing import Any
from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cefmp4.jobs.sources.asked import NotAJobError
from cefmp4.jobs.sources.s3_events import (
    MOST_OBJECTS,
    AskedJob,
    NewObject,
    read_message,
)

FILM = NewObject(
    bucket="films", key="a b/c+d.mp4", etag="9b2c-3", size=1024, sequencer="0055AED6DCD90281E5"
)


def record(**changed: Any) -> dict[str, Any]:
    """As S3 itself sends it to SQS."""
    facts = {
        "key": "a+b/c%2Bd.mp4",
        "size": 1024,
        "eTag": "9b2c-3",
        "versionId": "096fKKXTRTtl3on89fVO.nfljtsv6qko",
        "sequencer": "0055AED6DCD90281E5",
    }
    return {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "eu-central-1",
        "eventTime": "2026-01-02T03:04:05.000Z",
        "eventName": changed.pop("eventName", "ObjectCreated:CompleteMultipartUpload"),
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "films",
            "bucket": {"name": "films", "arn": "arn:aws:s3:::films"},
            "object": facts | changed,
        },
    }


def event_bridge(**changed: Any) -> dict[str, Any]:
    facts = {"key": "a b/c+d.mp4", "size": 1024, "etag": "9b2c-3"}
    return {
        "version": "0",
        "id": "17793124-05d4-b198-2fde-7ededc63b103",
        "detail-type": changed.pop("what", "Object Created"),
        "source": changed.pop("source", "aws.s3"),
        "detail": {
            "version": "0",
            "bucket": {"name": "films"},
            "object": facts | {"sequencer": "0055AED6DCD90281E5"} | changed,
            "reason": "CompleteMultipartUpload",
        },
    }


def through_sns(inner: object) -> dict[str, Any]:
    return {
        "Type": "Notification",
        "MessageId": "dc1e94d9-56c5-5e96-808d-cc7f68faa162",
        "TopicArn": "arn:aws:sns:eu-central-1:111122223333:films",
        "Subject": "Amazon S3 Notification",
        "Message": inner if isinstance(inner, str) else json.dumps(inner),
    }


def read(said: object) -> AskedJob | tuple[NewObject, ...]:
    return read_message(json.dumps(said))


@pytest.mark.parametrize(
    "said",
    [
        {"Records": [record()]},
        {"Records": [record(eventName="s3:ObjectCreated:Put")]},  # as MinIO and Ceph spell it
        {"Records": [record(eTag='"9b2c-3"')]},
        {"Records": [record(versionId=None)]},
        {"EventName": "s3:ObjectCreated:Put", "Key": "films/a", "Records": [record()]},
        through_sns({"Records": [record()]}),
        through_sns(through_sns({"Records": [record()]})),
        event_bridge(),
        event_bridge(**{"version-id": "IYV3p45BT0ac8hjHg1houSdS1a.Mro8e"}),
        through_sns(event_bridge()),
    ],
)
def test_every_shape_in_which_s3_tells_of_an_object(said: dict[str, Any]) -> None:
    assert read(said) == (FILM,)


@pytest.mark.parametrize("how", ["Put", "Post", "Copy", "CompleteMultipartUpload"])
def test_however_an_object_came_about_it_is_new(how: str) -> None:
    assert read({"Records": [record(eventName=f"ObjectCreated:{how}")]}) == (FILM,)


@pytest.mark.parametrize(
    "said",
    [
        {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "films"},
        through_sns({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "films"}),
        {"Records": []},
        {"Records": [record(eventName="ObjectRemoved:Delete")]},
        {"Records": [record(eventName="s3:ObjectTagging:Put")]},
        {"Records": [record(eventName="ObjectRestore:Completed")]},
        event_bridge(what="Object Deleted"),
        event_bridge(what="Object Tags Added"),
    ],
)
def test_events_of_something_else_tell_of_no_object(said: dict[str, Any]) -> None:
    assert read(said) == ()


def test_of_several_records_each_is_an_object() -> None:
    said = {"Records": [record(), record(eventName="ObjectRemoved:Delete"), record(key="b.mp4")]}
    found = read(said)
    assert isinstance(found, tuple)
    assert [one.key for one in found] == ["a b/c+d.mp4", "b.mp4"]


@given(st.text(min_size=1, max_size=200))
def test_keys_are_decoded_where_s3_encodes_them_and_nowhere_else(key: str) -> None:
    direct = read({"Records": [record(key=quote_plus(key))]})
    bridged = read(event_bridge(key=key))
    assert direct == bridged == (NewObject(**{**_facts(FILM), "key": key}),)


def _facts(found: NewObject) -> dict[str, Any]:
    return {name: getattr(found, name) for name in found.__slots__}


def test_the_same_event_twice_is_the_same_and_another_upload_is_not() -> None:
    one, again = (read({"Records": [record()]}) for _ in range(2))
    other = read({"Records": [record(sequencer="0055AED6DCD90281E6")]})
    unknown = read({"Records": [record(sequencer=None)]})
    ids = [found[0].id for found in (one, again, other, unknown) if isinstance(found, tuple)]
    assert ids[0] == ids[1] != ids[2]
    assert ids[3] == ""


@pytest.mark.parametrize("size", [None, -1, 0, 1e300, True, "1024", 2**63, [1]])
def test_a_size_that_is_none_is_left_out(size: object) -> None:
    found = read({"Records": [record(size=size)]})
    assert isinstance(found, tuple)
    assert found[0].size == 0


def test_a_job_is_asked_for_with_what_belongs_to_it() -> None:
    said = {"key": "a.mp4", "bucket": "b", "kind": "hls", "priority": 5, "id": "7", "path": "/etc"}
    fields = {"key": "a.mp4", "bucket": "b", "kind": "hls", "priority": 5}
    assert read(said) == AskedJob(fields=fields, id="7")
    assert read({"key": "a.mp4"}) == AskedJob(fields={"key": "a.mp4"})
    assert read(through_sns({"key": "a.mp4"})) == AskedJob(fields={"key": "a.mp4"})


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("", "no JSON"),
        ("{", "no JSON"),
        ("a.mp4", "no JSON"),
        ('"a.mp4"', "no JSON object"),
        ("[]", "no JSON object"),
        ("null", "no JSON object"),
        ("[" * 100_000, "no JSON"),
        ('{"key":' * 50_000, "no JSON"),
        ('{"size": ' + "9" * 5000 + "}", "no JSON"),
        ("{}", "neither"),
        ('{"hello": "world"}', "neither"),
        ('{"Records": {"0": 1}}', "no list"),
        ('{"Records": ["a"]}', "no event of S3"),
        ('{"Records": [{"eventSource": "aws:ses"}]}', "no event of S3"),
        ('{"Records": [{"eventName": "ObjectCreated:Put", "s3": "a"}]}', "no event of S3"),
        ('{"Records": [{"eventName": "ObjectCreated:Put", "s3": {}}]}', "names no object"),
        (json.dumps({"Records": [record()] * (MOST_OBJECTS + 1)}), "more than 100"),
        (json.dumps({"Records": [record(key="%ff")]}), "UTF-8"),
        (json.dumps({"Records": [record(key="")]}), "1 to 1024 bytes"),
        (json.dumps({"Records": [record(key="\ud800.mp4")]}), "1 to 1024 bytes"),
        (json.dumps({"Records": [record(key="a" * 1025)]}), "1 to 1024 bytes"),
        (json.dumps({"Records": [record(key=["a"])]}), "names no object"),
        (json.dumps(event_bridge(key=None)), "names no object"),
        (json.dumps(event_bridge(source="aws.glue")), "neither"),
        (json.dumps(through_sns("a film is there")), "no JSON"),
        (json.dumps({"Type": "SubscriptionConfirmation", "SubscribeURL": "x"}), "SubscribeURL"),
        ('{"key": "a.mp4", "id": 7}', "id must be"),
        (json.dumps({"key": "a.mp4", "id": "\ud800"}), "id must be"),
        (json.dumps({"key": "a.mp4", "id": "x" * 257}), "id must be"),
    ],
)
def test_what_is_no_job_is_told_why(body: str, says: str) -> None:
    with pytest.raises(NotAJobError, match=says):
        read_message(body)


def test_a_message_of_sns_in_a_message_of_sns_has_an_end() -> None:
    said: object = {"Records": [record()]}
    for _ in range(5):
        said = through_sns(said)
    with pytest.raises(NotAJobError, match="neither"):
        read(said)


def test_the_largest_message_is_read() -> None:
    said = {"Records": [record()], "padding": "ü" * (1024 * 1024 // 2)}
    assert read(said) == (FILM,)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
NAMES = st.sampled_from(
    ["Records", "Type", "Message", "detail-type", "source", "detail", "Event", "key", "id", "s3",
     "eventName", "bucket", "object", "name", "eTag", "etag", "size", "sequencer"]
)  # fmt: skip
WORDS = st.sampled_from(
    ["Notification", "aws.s3", "Object Created", "ObjectCreated:Put", "s3:TestEvent", "%zz", "{}"]
)
LIKE_EVENTS = st.recursive(
    JSON | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=20,
)


@given(st.dictionaries(NAMES, LIKE_EVENTS, max_size=6) | LIKE_EVENTS)
def test_whatever_it_says_nothing_else_comes_of_it(said: object) -> None:
    try:
        found = read(said)
    except NotAJobError:
        return
    if isinstance(found, tuple):
        for one in found:
            assert 0 < len(one.key.encode()) <= 1024
            assert isinstance(one.bucket, str)
            assert 0 <= one.size < 2**63
    else:
        assert isinstance(found.id, str)


@given(st.text() | st.binary().map(lambda data: data.decode("latin-1")))
def test_whatever_the_text_is_nothing_else_comes_of_it(body: str) -> None:
    with suppress(NotAJobError):
        assert read_message(body) is not None
