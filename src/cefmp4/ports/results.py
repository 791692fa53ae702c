"""Where results of jobs go."""

from dataclasses import dataclass
from typing import Any, Protocol

from cefmp4.model.job import JobInput, JobKind


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult:
    """What the accepted attempt of a job made. `document` is fit for JSON and has every row."""

    job_id: str
    kind: JobKind
    subject: str
    source: JobInput
    attempt: str
    accepted_at: float
    document: dict[str, Any]


class ResultStore(Protocol):
    """Keeps one result of each job: of two, the one that was accepted later."""

    async def keep(self, result: JobResult) -> str:
        """Where it lies now, as an address for people. The same again changes nothing, and neither
        does one that was accepted earlier. Raises TransientError while the store is out of
        reach."""
        ...
