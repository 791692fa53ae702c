"""Whether a recording can be watched, and what a person is told while it cannot."""

from dataclasses import dataclass
from enum import StrEnum

from cefmp4.model.job import FailReason, Job
from cefmp4.model.stream import PROVEN_STATES, StreamState
from cefmp4.model.view import StreamView


class ShowState(StrEnum):
    READY = "ready"
    WAITING = "waiting"  # worth asking again
    NEVER = "never"  # unless somebody does something about it


@dataclass(frozen=True, slots=True, kw_only=True)
class Showing:
    state: ShowState
    message: str = ""
    percent: float | None = None


def showing_of(
    view: StreamView | None, job: Job | None, *, workers: int, why_unplayable: str, now: float
) -> Showing:
    """Of a recording whose HLS is not there. One of `view` and `job` is known; `workers`: how many
    live that could do the job."""
    if job is not None:
        return _of_job(job, workers, now)
    assert view is not None
    if view.playable is False:
        return _never(f"This recording cannot be played: {_clause(why_unplayable)}.")
    if view.state is StreamState.FAILED:
        return _never(f"This recording could not be stored: {_clause(view.reason)}.")
    if view.state is StreamState.DROPPED:
        return _never("The file vanished before anything of it was stored.")
    if view.state is StreamState.HANDED_OVER:
        return _never(
            "Nothing is known of a job that makes HLS of this recording. "
            f"“cefmp4 jobs submit {view.id}” makes one."
        )
    if view.state is StreamState.DESCRIBED:
        return _never("No HLS is made of recordings here (HANDOVER_JOBS).")
    if view.state in PROVEN_STATES:
        return _waiting("The recording is stored; its HLS comes next.")
    return _waiting("The recording is still being stored; its HLS is made after that.")


def _of_job(job: Job, workers: int, now: float) -> Showing:
    if job.is_running:
        if job.progress is None:
            return _waiting("The HLS is being made.")
        return _waiting(f"The HLS is being made: {job.progress.percent:.0f} %.", job)
    if job.is_queued:
        return _waiting(_why_queued(job, workers, now))
    if job.is_complete:
        return _never("The HLS was made, but it is not in the bucket any more.")
    if job.reason is FailReason.CANCELLED:
        return _never("The making of the HLS was cancelled.")
    return _never(f"This recording cannot be played: {_clause(job.error)}.")


def _why_queued(job: Job, workers: int, now: float) -> str:
    if not workers:
        return (
            "The HLS waits for a worker, and no worker is running. "
            "“cefmp4 worker” starts one; “cefmp4 up” has its own."
        )
    if job.due_at > now and job.error:
        left_s = job.due_at - now
        return f"The HLS is tried again in {left_s:.0f} s. The last try: {_clause(job.error)}."
    return "The HLS waits for its turn."


def _clause(error: str) -> str:
    return error.strip().rstrip(".") or "no reason is known"


def _waiting(message: str, job: Job | None = None) -> Showing:
    percent = job.progress.percent if job and job.progress else None
    return Showing(state=ShowState.WAITING, message=message, percent=percent)


def _never(message: str) -> Showing:
    return Showing(state=ShowState.NEVER, message=message)
