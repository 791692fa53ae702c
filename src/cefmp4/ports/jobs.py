"""Where jobs go."""

from typing import Protocol

from cefmp4.model.job import JobSpec


class JobSink(Protocol):
    """Takes the jobs of a stream that is described."""

    async def submit(self, spec: JobSpec) -> bool:
        """False: the job is known already, in whatever state. Raises ServerUnreachableError."""
        ...
