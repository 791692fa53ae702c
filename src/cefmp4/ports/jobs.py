"""Where jobs go, and where they are looked at."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from cefmp4.model.job import Job, JobKind, JobSpec, JobState, QueueStats


class JobSink(Protocol):
    """Takes the jobs of a stream that is described."""

    async def submit(self, spec: JobSpec) -> bool:
        """False: the job is known already, in whatever state. Raises ServerUnreachableError."""
        ...


class JobDesk(JobSink, Protocol):
    """Jobs as people see them. Everything may raise ServerUnreachableError."""

    async def find(self, job_id: str) -> Job | None: ...

    async def get(self, job_id: str) -> Job:
        """Raises UnknownJobError."""
        ...

    async def latest(
        self, states: Iterable[JobState], limit: int, kind: JobKind | None = None
    ) -> list[Job]:
        """The newest of each state, in the order of the states. Of this kind; None: of all."""
        ...

    async def complete_of(self, job_ids: Sequence[str]) -> set[str]:
        """Which of these jobs are complete."""
        ...

    async def counts(self, kind: JobKind | None = None) -> dict[JobState, int]:
        """Of this kind; None: of all."""
        ...

    async def backlog(self, kind: JobKind) -> int:
        """About how many wait for a worker. Cheap however many there are; asked anew each time."""
        ...

    async def queue(self, kind: JobKind) -> QueueStats: ...

    async def cancel(self, job_id: str) -> JobState:
        """Returns the state it was in. Raises UnknownJobError; RefusedError where it has
        ended."""
        ...

    async def retry(self, job_id: str) -> None:
        """Begins a failed job anew, with all its attempts. Raises RefusedError for any other."""
        ...

    async def begin_again(self, spec: JobSpec) -> None:
        """Whatever came of it before. RefusedError while it has not ended."""
        ...
