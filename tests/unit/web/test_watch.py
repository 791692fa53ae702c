"""What people are told of a recording that cannot be watched yet."""

from dataclasses import replace

import pytest

from cefmp4.model.job import FailReason, Job, JobInput, JobKind, JobProgress, JobSpec, JobState
from cefmp4.model.stream import Stream, StreamState
from cefmp4.model.view import view_of_record
from cefmp4.web.watch import ShowState, showing_of

NOW = 1000.0
VIEW = view_of_record(Stream(id="s1", relpath="a.mp4", state=StreamState.STORED, part_base=1))
QUEUED = Job(
    spec=JobSpec(subject="s1", kind=JobKind.HLS, input=JobInput(key="a.mp4")),
    state=JobState.QUEUED,
    due_at=NOW,
)
FAILED = replace(QUEUED, state=JobState.FAILED, reason=FailReason.ERROR, error="no video in it.")
RUNNING = replace(QUEUED, state=JobState.IN_PROGRESS)


@pytest.mark.parametrize(
    ("job", "state", "message"),
    [
        (QUEUED, ShowState.WAITING, "The HLS waits for its turn."),
        (replace(QUEUED, due_at=NOW + 7, error="busy"), ShowState.WAITING, "again in 7 s."),
        (replace(QUEUED, due_at=NOW + 7, error="busy"), ShowState.WAITING, "The last try: busy."),
        (RUNNING, ShowState.WAITING, "The HLS is being made."),
        (replace(RUNNING, progress=JobProgress(percent=43.2)), ShowState.WAITING, "made: 43 %."),
        (FAILED, ShowState.NEVER, "This recording cannot be played: no video in it."),
        (replace(FAILED, error=""), ShowState.NEVER, "no reason is known"),
        (replace(FAILED, reason=FailReason.CANCELLED), ShowState.NEVER, "was cancelled"),
        (replace(QUEUED, state=JobState.COMPLETE), ShowState.NEVER, "not in the bucket"),
    ],
)
def test_a_job(job: Job, state: ShowState, message: str) -> None:
    found = showing_of(VIEW, job, workers=1, why_unplayable="", now=NOW)
    assert found.state is state
    assert message in found.message
    assert found.percent == (job.progress.percent if job.progress else None)


def test_nobody_is_there_to_do_it() -> None:
    found = showing_of(None, QUEUED, workers=0, why_unplayable="", now=NOW)
    assert found.state is ShowState.WAITING
    assert "no worker is running" in found.message


@pytest.mark.parametrize("stream_state", StreamState)
def test_a_stream_without_a_job(stream_state: StreamState) -> None:
    view = replace(VIEW, state=stream_state, reason="truncated" if stream_state == "failed" else "")
    found = showing_of(view, None, workers=1, why_unplayable="", now=NOW)
    ends = view.is_ended
    assert found.state is (ShowState.NEVER if ends else ShowState.WAITING)
    assert found.message.endswith(".")
    assert view.reason in found.message


def test_what_no_player_plays() -> None:
    view = replace(VIEW, state=StreamState.DESCRIBED, playable=False)
    found = showing_of(view, None, workers=1, why_unplayable="it is encrypted", now=NOW)
    assert found.state is ShowState.NEVER
    assert found.message == "This recording cannot be played: it is encrypted."
