"""What becomes of a message: offers with the jobs that are wanted, and none of what we make
ourselves."""

import json
from typing import Any

import pytest
from tests.support.stub_s3 import Reply, StubS3

from cefmp4.config.settings import Settings
from cefmp4.errors import CefError
from cefmp4.jobs.sources.s3_events import NewObject
from cefmp4.jobs.sources.sqs_messages import MessageReader, open_reader
from cefmp4.jobs.sources.sqs_queue import Message
from cefmp4.model.names import META_STREAM_ID
from cefmp4.storage.s3.connect import S3Config, connect
from cefmp4.watch.selection import Selection

STREAM = "20260102T030405Z-0123456789ab"


async def nothing_is(_found: NewObject) -> bool:
    return False


def reader(**changed: Any) -> MessageReader:
    given: dict[str, Any] = {
        "selection": Selection(("*.mp4", "*.m4s")),
        "is_recording": nothing_is,
    }
    return MessageReader(**(given | changed))


def message(said: object) -> Message:
    return Message(id="message-1", receipt="r", body=json.dumps(said))


def event(*keys: str, sequencer: str = "05") -> dict[str, Any]:
    return {
        "Records": [
            {
                "eventName": "ObjectCreated:Put",
                "s3": {
                    "bucket": {"name": "films"},
                    "object": {"key": key, "eTag": "e", "size": 7, "sequencer": sequencer},
                },
            }
            for key in keys
        ]
    }


async def test_an_event_is_a_job_of_that_very_content() -> None:
    offer = await reader().offer(message(event("a/b.mp4")))
    assert offer.jobs == ({"bucket": "films", "key": "a/b.mp4", "etag": "e", "size": 7},)
    assert offer.fault == ""


async def test_events_that_tell_twice_of_one_upload_are_one_job() -> None:
    one, again, later = [
        (await reader().offer(message(event("a.mp4", sequencer=sequencer)))).ref
        for sequencer in ("05", "05", "06")
    ]
    assert one == again != later
    assert (await reader().offer(message(event("a.mp4", sequencer="")))).ref == "message-1"
    assert (await reader().offer(message(event("a.mp4", "b.mp4")))).ref == "message-1"


async def test_what_is_asked_for_twice_by_one_id_is_one_job() -> None:
    named = await reader().offer(message({"key": "a.txt", "id": "7"}))
    assert named.ref == "id 7"
    assert named.jobs == ({"key": "a.txt"},)  # whoever asks for it means it
    assert (await reader().offer(message({"key": "a.mp4"}))).ref == "message-1"


@pytest.mark.parametrize(
    "key",
    [
        "a.txt",
        "a.mp4.metadata.json",
        f"hls/{STREAM}/1080p.a1/init.mp4",
        f"hls/{STREAM}/1080p.a1/seg_00000.m4s",
        "hls/w0123456789abcdef0123/1080p.a1/init.mp4",  # of a job that we began for a message
        "hls/x0123456789abcdef0123/1080p.a1/seg_00000.m4s",
        "films/.hidden.mp4",
        "films/a.mp4.part",
        "folder.mp4/",
    ],
)
async def test_what_is_no_recording_or_ours_is_accepted_without_a_job(key: str) -> None:
    offer = await reader().offer(message(event(key)))
    assert (offer.jobs, offer.fault) == ((), "")


async def test_of_several_objects_those_that_are_wanted_are_jobs() -> None:
    offer = await reader().offer(message(event("a.mp4", "a.txt", "B.MP4")))
    assert [job["key"] for job in offer.jobs] == ["a.mp4", "B.MP4"]


async def test_nonsense_has_a_fault() -> None:
    offer = await reader().offer(message(["a"]))
    assert offer.jobs == ()
    assert "JSON" in offer.fault


async def test_patterns_of_paths_count_by_their_last_part() -> None:
    settings = Settings(watch_filter_globs=("cam1/*.mov",), handover_jobs=())
    async with open_reader(settings) as found:
        assert (await found.offer(message(event("streams/1/a.mov")))).jobs
        assert not (await found.offer(message(event("streams/1/a.mp4")))).jobs


async def test_recordings_are_left_to_the_hand_over() -> None:
    async with StubS3().running() as server:
        await put(server, "films", "ours.mp4", {META_STREAM_ID: STREAM})
        await put(server, "films", "theirs.mp4", {"owner": "us"})
        async with open_reader(settings_of(server)) as found:
            assert not (await found.offer(message(event("ours.mp4")))).jobs
            for key in ("theirs.mp4", "gone.mp4"):
                assert (await found.offer(message(event(key)))).jobs


async def test_in_another_bucket_or_without_hand_over_nobody_looks() -> None:
    async with StubS3().running() as server:
        await put(server, "films", "ours.mp4", {META_STREAM_ID: STREAM})
        server.seen.clear()
        elsewhere = settings_of(server, s3_bucket_name="recordings")
        for settings in (elsewhere, settings_of(server, handover_jobs="none")):
            async with open_reader(settings) as found:
                assert (await found.offer(message(event("ours.mp4")))).jobs
    assert server.seen == []


@pytest.mark.parametrize("status", [403, 400])
async def test_an_object_that_cannot_be_looked_at_is_no_recording(status: int) -> None:
    async with StubS3().running() as server:
        server.answer("HeadObject", Reply(status=status))
        async with open_reader(settings_of(server)) as found:
            assert (await found.offer(message(event("gone.mp4")))).jobs


async def test_while_s3_is_away_nothing_is_decided() -> None:
    async with StubS3().running() as server:
        server.answer("HeadObject", *[Reply(status=500)] * 4)
        async with open_reader(settings_of(server)) as found:
            with pytest.raises(CefError):
                await found.offer(message(event("a.mp4")))


def settings_of(server: StubS3, **changed: Any) -> Settings:
    given: dict[str, Any] = {
        "job_source_type": "internal",
        "s3_endpoint_url": server.endpoint_url,
        "s3_access_key_id": "a",
        "s3_secret_access_key": "b",
        "s3_bucket_name": "films",
    }
    return Settings.model_validate(given | changed)


async def put(server: StubS3, bucket: str, key: str, metadata: dict[str, str]) -> None:
    config = S3Config(bucket=bucket, endpoint_url=server.endpoint_url, access_key="a", secret="b")
    async with connect(config) as (calls, _):
        await calls.call("PutObject", Key=key, Body=b"film", Metadata=metadata)
