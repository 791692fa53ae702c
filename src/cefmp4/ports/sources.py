"""Where jobs come from, beside those that we hand over ourselves."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from cefmp4.model.job import JobEnd


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a source has for us: `jobs`, each as it was asked for, or none where nothing is to be
    done. `ref` is the name by which the source finds it again. What cannot be read as jobs has a
    `fault` instead, for the source's own users."""

    ref: str
    jobs: tuple[dict[str, Any], ...] = field(default=(), repr=False)
    fault: str = ""


class JobSource(Protocol):
    """Feeds the engine. Everything may raise ServerUnreachableError and what else time or an
    operator can heal; nothing may be lost by that."""

    name: ClassVar[str]
    wants_reports: ClassVar[bool]  # of how its jobs ended
    # Whether an offer that comes again asks for the job again, or was only delivered twice.
    repeats_mean_again: ClassVar[bool]
    place: str  # which table or queue; the same for all who ask it, wherever they are

    def offers(self, most: int) -> AbstractAsyncContextManager[Sequence[Offer]]:
        """Claims some, at most so many. What is neither accepted nor refused when the block ends,
        however it does, is offered again, here or elsewhere."""
        ...

    async def accept(self, offer: Offer, job_ids: Sequence[str]) -> None:
        """Its jobs are the engine's now. Inside of the block of `offers`."""
        ...

    async def refuse(self, offer: Offer, fault: str) -> None:
        """No job can be made of it, ever. Inside of the block of `offers`."""
        ...

    async def until_more(self) -> None:
        """After `offers` gave none: returns when there may be some."""
        ...

    async def report(self, end: JobEnd) -> None:
        """Tells the source how a job of its own ended. The same again changes nothing."""
        ...

    async def waiting(self) -> int:
        """How many it has that nobody claimed."""
        ...
