from dataclasses import replace

import pytest

from cefmp4.errors import InvariantError
from cefmp4.model.job import (
    FINAL_STATES,
    LANES,
    TRANSITIONS,
    Job,
    JobInput,
    JobKind,
    JobSpec,
    JobState,
    Lane,
    check_move,
    input_of_stream,
    subject_of,
)
from cefmp4.model.stream import FileStamp, Stream


@pytest.mark.parametrize("state", list(JobState))
@pytest.mark.parametrize("target", list(JobState))
def test_only_the_table_allows_a_move(state: JobState, target: JobState) -> None:
    if target in TRANSITIONS[state]:
        check_move("a", state, target)
    else:
        with pytest.raises(InvariantError, match="job a cannot go"):
            check_move("a", state, target)


def test_failure_is_possible_from_every_state_that_is_not_final() -> None:
    assert all(
        (JobState.FAILED in TRANSITIONS[state]) == (state not in FINAL_STATES) for state in JobState
    )


def test_the_id_says_which_content_and_which_kind() -> None:
    source = JobInput(bucket="b", key="k")
    spec = JobSpec(subject=subject_of(source), kind=JobKind.HLS, input=source)
    assert spec.id == JobSpec(subject=subject_of(source), kind=JobKind.HLS, input=source).id
    assert replace(spec, kind=JobKind.ANALYSIS).id != spec.id
    assert subject_of(replace(source, etag="other")) != subject_of(source)
    assert subject_of(JobInput(path="/\udcff", mtime_ns=1)) != subject_of(JobInput(path="/\udcff"))


def test_a_job_passes_through_the_lanes_of_its_kind() -> None:
    spec = JobSpec(subject="s", kind=JobKind.HLS, input=JobInput())
    job = Job(spec=spec, state=JobState.QUEUED, lane=Lane.HLS_LOOK)
    assert job.next_lane is Lane.HLS_ENCODE
    assert replace(job, lane=Lane.HLS_ENCODE).next_lane is None
    assert sorted(lane for lanes in LANES.values() for lane in lanes) == sorted(Lane)


def test_the_input_of_a_stream_is_its_object_and_its_proven_file() -> None:
    stamp = FileStamp(inode=1, size=2, mtime_ns=3, ctime_ns=4)
    stream = Stream(
        id="s", relpath="a/b.mp4", part_base=1, key="k", etag="e", size=2, stamp=stamp, crc64=5
    )
    assert input_of_stream(stream, bucket="b", folder="/in") == JobInput(
        bucket="b",
        key="k",
        path="/in/a/b.mp4",
        size=2,
        etag="e",
        crc64=5,
        inode=1,
        mtime_ns=3,
        ctime_ns=4,
    )
    assert input_of_stream(replace(stream, stamp=None), bucket="b", folder="/in").path == ""
