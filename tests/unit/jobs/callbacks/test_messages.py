"""What is told to whoever listens: the same of the same event, and nothing that is a secret."""

import json
from dataclasses import replace
from typing import Any

import pytest

from cefmp4.jobs.callbacks.messages import message_of_end, message_of_stored, spec_of_stored
from cefmp4.model.job import FailReason, JobEnd, JobInput, JobKind, JobSpec, JobState
from cefmp4.model.stream import FileStamp, Stream, StreamState

SPEC = JobSpec(
    subject="s",
    kind=JobKind.HLS,
    input=JobInput(bucket="b", key="k.mp4", size=7, etag="e"),
    tells=("callback",),
    ref="order 7",
)
END = JobEnd(
    spec=SPEC, state=JobState.COMPLETE, at=1_700_000_000.25, attempts=1, result={"segments": 3}
)
STREAM = Stream(
    id="20260101T000000Z-0badcafe",
    relpath="cam/r\udcff.mp4",
    part_base=1,
    state=StreamState.DESCRIBED,
    key="streams/r.mp4",
    size=11,
    stamp=FileStamp(1, 11, 2, 3),
    crc64=5,
    sha256="aa",
    etag="e",
    playable=None,
    completed_at=1_700_000_000.5,
)


def told(body: bytes) -> Any:
    assert body.isascii()
    return json.loads(body)


def test_a_job_that_is_complete() -> None:
    assert told(message_of_end(END).body) == {
        "type": "job.completed",
        "timestamp": "2023-11-14T22:13:20.250000Z",
        "data": {
            "job_id": "s-hls",
            "kind": "hls",
            "subject": "s",
            "ref": "order 7",
            "input": {"bucket": "b", "key": "k.mp4", "path": "", "size": 7, "etag": "e"},
            "state": "complete",
            "reason": None,
            "error": "",
            "attempts": 1,
            "result": {"segments": 3},
        },
    }


def test_a_job_that_failed_tells_why_and_no_secret() -> None:
    end = replace(
        END,
        state=JobState.FAILED,
        reason=FailReason.ERROR,
        error="GET http://s3/k?X-Amz-Signature=hidden&x=1 failed",
        result={"stored_in": ["postgresql://me:hidden@db/jobs"], "rate": float("nan")},
    )
    found = told(message_of_end(end).body)
    assert found["type"] == "job.failed"
    assert (found["data"]["reason"], found["data"]["state"]) == ("error", "failed")
    assert "hidden" not in json.dumps(found)
    assert found["data"]["result"]["rate"] is None


def test_an_end_has_one_id_and_that_of_another_run_another() -> None:
    assert message_of_end(END).id == message_of_end(replace(END, attempts=9)).id
    others = {
        message_of_end(replace(END, at=END.at + 0.001)).id,
        message_of_end(replace(END, spec=replace(SPEC, subject="t"))).id,
    }
    assert len(others | {message_of_end(END).id}) == 3
    assert "." not in message_of_end(END).id


@pytest.mark.parametrize("playable", [True, False, None])
def test_a_stored_recording(playable: bool | None) -> None:
    stream = replace(STREAM, playable=playable)
    spec = spec_of_stored(stream, bucket="films", watch_dir="/w")
    assert (spec.id, spec.kind) == (f"{STREAM.id}-callback", JobKind.CALLBACK)
    assert all(isinstance(value, str) for value in spec.params.values())
    message = message_of_stored(spec)
    assert told(message.body) == {
        "type": "recording.stored",
        "timestamp": "2023-11-14T22:13:20.500000Z",
        "data": {
            "stream_id": STREAM.id,
            "path": "cam/r%FF.mp4",
            "generation": 1,
            "bucket": "films",
            "key": "streams/r.mp4",
            "metadata_key": "streams/r.mp4.metadata.json",
            "size": 11,
            "etag": "e",
            "sha256": "aa",
            "crc64nvme": "AAAAAAAAAAU=",
            "playable": playable,
        },
    }
    assert message.id == message_of_stored(spec).id


def test_odd_texts_are_fit_for_every_parser() -> None:
    spec = replace(SPEC, input=JobInput(path="/in/\udcff\n\x1b.mp4"), ref='"\u2028')
    end = replace(END, spec=spec, error="\ud800", state=JobState.FAILED)
    text = json.dumps(told(message_of_end(end).body))
    assert "\\ud8" not in text
    assert "\\udc" not in text
