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
    fence: int
    document: dict[str, Any]


class ResultStore(Protocol):
    """Keeps one result of each job: the one that the ledger accepted."""

    async def accept(self, result: JobResult) -> bool:
        """The same job and fence again change nothing. False: another attempt's result counts, or
        none does yet, and nothing of this one is kept. Raises TransientError while the store is
        out of reach."""
        ...
