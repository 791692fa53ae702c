"""Where results of jobs go."""

from dataclasses import dataclass
from typing import Any, Protocol

from cefmp4.model.job import JobKind


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult:
    """What the accepted attempt of a job made. `document` is fit for JSON and has every row."""

    job_id: str
    kind: JobKind
    subject: str
    document: dict[str, Any]


class ResultStore(Protocol):
    """Keeps one result of each job: the one whose attempt the engine accepted."""

    async def keep(self, result: JobResult) -> None:
        """The same again changes nothing. Raises TransientError while the store is out of reach."""
        ...
