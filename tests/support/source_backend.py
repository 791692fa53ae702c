"""A source of jobs under test, and what its own users do with it, past the port."""

from dataclasses import dataclass
from typing import Any, Protocol

from tests.support.memory_source import MemorySource

from cefmp4.ports.sources import JobSource


@dataclass(frozen=True)
class Seen:
    """Of one offer. `state`: pending, processing, done, failed, or gone."""

    state: str
    error: str = ""
    attempts: int = 0
    result: dict[str, Any] | None = None


class Backend(Protocol):
    @property
    def pollers(self) -> list[JobSource]:
        """Two that ask the same place."""
        ...

    async def put(self, asked: dict[str, Any]) -> str:
        """Somebody asks for a job. Returns its ref."""
        ...

    async def put_nonsense(self) -> str:
        """Somebody asks for what is no job."""
        ...

    async def seen(self, ref: str) -> Seen: ...

    async def put_back(self, ref: str) -> None:
        """Somebody wants it once more. Only of sources whose repeats mean that."""
        ...

    async def pass_time(self) -> None:
        """What a poller claimed and never dealt with may be offered again."""
        ...


class MemoryBackend:
    def __init__(self) -> None:
        self.source = MemorySource()

    @property
    def pollers(self) -> list[JobSource]:
        return [self.source, self.source]

    async def put(self, asked: dict[str, Any]) -> str:
        return self.source.put(asked)

    async def put_nonsense(self) -> str:
        return self.source.put({"key": ""})

    async def seen(self, ref: str) -> Seen:
        row = self.source.rows[ref]
        end = row.end
        return Seen(
            row.state,
            row.fault or (end.error if end else ""),
            end.attempts if end else 0,
            end.result if end else None,
        )

    async def put_back(self, ref: str) -> None:
        self.source.put_back(ref)

    async def pass_time(self) -> None: ...
