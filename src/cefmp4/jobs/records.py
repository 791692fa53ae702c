"""How a job is written down in Redis. Fields of a later version are ignored, so that old and new
instances can share one Redis."""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, TypeVar

from cefmp4.errors import InvariantError
from cefmp4.model.job import (
    FailReason,
    Job,
    JobInput,
    JobKind,
    JobProgress,
    JobSpec,
    JobState,
    Lane,
)
from cefmp4.storage.redis.records import to_text

T = TypeVar("T", JobInput, JobProgress)


def encode_spec(spec: JobSpec) -> str:
    """Everything of it that the scripts do not need."""
    return json.dumps({"subject": spec.subject, "input": asdict(spec.input), "params": spec.params})


def encode_progress(progress: JobProgress | None) -> str:
    return json.dumps(asdict(progress)) if progress else ""


def decode_job(raw: Mapping[bytes, bytes]) -> Job:
    """Raises InvariantError for what is no record of ours."""
    try:
        return _decode({to_text(name): to_text(value) for name, value in raw.items()})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InvariantError(f"a job record in Redis cannot be read: {error!r}") from error


def _decode(record: dict[str, str]) -> Job:
    spec = json.loads(record["spec"])
    fences = tuple(int(fence) for fence in record.get("fences", "").split(",") if fence)
    return Job(
        spec=JobSpec(
            subject=spec["subject"],
            kind=JobKind(record["kind"]),
            input=_known(JobInput, spec["input"]),
            params=spec.get("params", {}),
            priority=int(record["priority"]),
            max_attempts=int(record["max_attempts"]),
        ),
        state=JobState(record["state"]),
        reason=FailReason(record["reason"]) if "reason" in record else None,
        error=record.get("error", ""),
        attempts=int(record.get("attempts", 0)),
        round=int(record.get("round", 0)),
        fence=int(record.get("fence", 0)),
        fences=fences,
        lane=Lane(record["lane"]),
        owner=record.get("owner", ""),
        slot=record.get("slot", ""),
        is_cancel_requested="cancel" in record,
        accepted=int(record.get("accepted", 0)),
        result=json.loads(record["result"]) if "result" in record else None,
        progress=_known(JobProgress, json.loads(record["progress"]))
        if "progress" in record
        else None,
        submitted_at=float(record.get("submitted_at", 0)),
        due_at=float(record.get("due_at", 0)),
        started_at=float(record.get("started_at", 0)),
        ended_at=float(record.get("ended_at", 0)),
        updated_at=float(record.get("updated_at", 0)),
    )


def _known(shape: type[T], record: dict[str, Any]) -> T:
    names = {item.name for item in fields(shape)}
    return shape(**{name: value for name, value in record.items() if name in names})
