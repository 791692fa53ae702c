"""A job as the engine tells of it."""

from collections.abc import Sequence

from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import PendingActivityState
from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.client import (
    WorkflowExecution,
    WorkflowExecutionDescription,
    WorkflowExecutionStatus,
)
from temporalio.converter import WorkflowSerializationContext
from temporalio.exceptions import ApplicationError

from cefmp4.errors import UnknownJobError
from cefmp4.jobs.flow import Standing, attempts_of
from cefmp4.model.job import FINAL_STATES, FailReason, Job, JobProgress, JobSpec, JobState, Step
from cefmp4.temporal.names import SPEC, STANDING

# Where the flow could not say itself how it ended.
_ENDED = {
    WorkflowExecutionStatus.CANCELED: (FailReason.CANCELLED, "cancelled"),
    WorkflowExecutionStatus.TERMINATED: (FailReason.CANCELLED, "terminated in Temporal"),
    WorkflowExecutionStatus.FAILED: (
        FailReason.ERROR,
        "refused as not signed: TEMPORAL_CODEC_KEY must be the same on all hosts",
    ),
    WorkflowExecutionStatus.TIMED_OUT: (FailReason.ERROR, "ended by Temporal: it took too long"),
    # By somebody who polls our queue, and cannot sign.
    WorkflowExecutionStatus.COMPLETED: (FailReason.ERROR, "ended without a result of ours"),
}
_MAY_BE_COMPLETE = (WorkflowExecutionStatus.COMPLETED, WorkflowExecutionStatus.RUNNING)
_SCHEDULED = PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED
_CANCELLED = PendingActivityState.PENDING_ACTIVITY_STATE_CANCEL_REQUESTED


async def spec_of(found: WorkflowExecution) -> JobSpec:
    """Raises UnknownJobError for what somebody else put into the engine."""
    try:
        spec = await found.memo_value(SPEC, type_hint=JobSpec)
    except (KeyError, ApplicationError, TypeError, ValueError, RuntimeError):
        spec = None
    if not isinstance(spec, JobSpec) or spec.id != found.id:
        raise UnknownJobError(f"there is no job {found.id!a} that we signed")
    return spec


async def standing_of(found: WorkflowExecution) -> Standing:
    try:
        standing = await found.memo_value(STANDING, Standing(), type_hint=Standing)
    except (ApplicationError, TypeError, ValueError, RuntimeError):
        standing = None
    return standing if isinstance(standing, Standing) else Standing()


async def job_of(found: WorkflowExecution) -> Job:
    """Raises UnknownJobError. Whether a job runs is known of a description alone."""
    spec, standing = await spec_of(found), await standing_of(found)
    state, reason, error = _end_of(found.status, standing)
    step = _running_step(found) if state is JobState.QUEUED else None
    if step is not None:
        state = JobState.IN_PROGRESS
    submitted_at = found.start_time.timestamp()
    started_at = step.last_started_time.ToSeconds() if step else 0.0
    beaten_at = step.last_heartbeat_time.ToSeconds() if step else 0.0
    closed_at = found.close_time.timestamp() if found.close_time else 0.0
    is_telling = standing.step is Step.REPORT and not closed_at
    ended_at = standing.ended_at or closed_at
    return Job(
        spec=spec,
        state=state,
        reason=reason,
        error=error,
        attempts=attempts_of(standing, state, reason),
        attempt_names=standing.attempts,
        step=standing.step,
        owner=step.last_worker_identity if step else "",
        accepted=standing.accepted,
        result=standing.result,
        progress=await _progress_of(found, step.heartbeat_details.payloads) if step else None,
        is_telling=is_telling and state in FINAL_STATES,
        is_cancel_requested=step is not None and step.state == _CANCELLED,
        submitted_at=submitted_at,
        due_at=standing.waits_until,
        started_at=float(started_at),
        ended_at=ended_at,
        updated_at=max(submitted_at, started_at, beaten_at, ended_at),
    )


def _end_of(
    status: WorkflowExecutionStatus | None, standing: Standing
) -> tuple[JobState, FailReason | None, str]:
    if standing.reason is not None:
        return JobState.FAILED, standing.reason, standing.error
    if status in _MAY_BE_COMPLETE and standing.result is not None:
        return JobState.COMPLETE, None, ""
    if status in _ENDED:
        reason, why = _ENDED[status]
        return JobState.FAILED, reason, standing.error or why
    return JobState.QUEUED, None, standing.error


def _running_step(found: WorkflowExecution) -> PendingActivityInfo | None:
    """Of a step that was given to another worker before, the former one is told of until then."""
    if not isinstance(found, WorkflowExecutionDescription):
        return None
    for step in found.raw_description.pending_activities:
        if step.last_worker_identity and step.state != _SCHEDULED:
            return step
    return None


async def _progress_of(found: WorkflowExecution, beat: Sequence[Payload]) -> JobProgress | None:
    if not beat:
        return None
    job = WorkflowSerializationContext(namespace=found.namespace, workflow_id=found.id)
    try:
        (progress,) = await found.data_converter.with_context(job).decode(beat, [JobProgress])
    except (ApplicationError, TypeError, ValueError, RuntimeError):
        return None
    return progress if isinstance(progress, JobProgress) else None
