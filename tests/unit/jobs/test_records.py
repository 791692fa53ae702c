import json

import pytest

from cefmp4.errors import InvariantError
from cefmp4.jobs.records import decode_job, encode_progress, encode_spec
from cefmp4.model.job import JobInput, JobKind, JobProgress, JobSpec, JobState, Lane

SPEC = JobSpec(
    subject="s",
    kind=JobKind.HLS,
    input=JobInput(key="k", path="/\udcff", size=2**63, crc64=2**64 - 1, mtime_ns=2**62),
    params={"a": "b"},
    priority=-4,
    max_attempts=7,
)


def record(**changes: str) -> dict[bytes, bytes]:
    fields = {
        "kind": "hls",
        "lane": "hls-encode",
        "state": "queued",
        "priority": "-4",
        "max_attempts": "7",
        "spec": encode_spec(SPEC),
        **changes,
    }
    return {name.encode(): value.encode() for name, value in fields.items()}


def test_a_record_is_read_as_it_was_written() -> None:
    progress = JobProgress(percent=12.5, eta_seconds=3)
    job = decode_job(
        record(
            fence="9", fences="7,9", accepted="7", progress=encode_progress(progress), cancel="1"
        )
    )
    assert job.spec == SPEC
    assert (job.state, job.lane, job.fences) == (JobState.QUEUED, Lane.HLS_ENCODE, (7, 9))
    assert (job.accepted, job.is_accepted, job.is_cancel_requested) == (7, True, True)
    assert job.progress == progress


def test_fields_of_a_later_version_are_ignored() -> None:
    later = json.loads(encode_spec(SPEC))
    later["input"]["colour"] = "blue"
    assert decode_job(record(spec=json.dumps(later), novelty="1")).spec == SPEC


@pytest.mark.parametrize("changes", [{"state": "asleep"}, {"spec": "{"}, {"fence": "x"}])
def test_what_is_no_record_says_so(changes: dict[str, str]) -> None:
    with pytest.raises(InvariantError):
        decode_job(record(**changes))
