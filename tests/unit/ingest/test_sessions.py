"""One service after another, for as long as each has its folder."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from cefmp4.ingest.folder import FoundFolder
from cefmp4.ingest.sessions import IngestSessions
from cefmp4.model.folder import WatchedFolder


def found(name: str) -> FoundFolder:
    return FoundFolder(folder=WatchedFolder(id=name), place=(1, 1), mounts=frozenset())


@dataclass
class Finder:
    """Once it has found all that is `ahead`, somebody sets `stop` while it waits."""

    ahead: list[FoundFolder]
    away: bool = True
    waiting_for: str = ""
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def find(self) -> FoundFolder:
        if not self.ahead:
            self.stop.set()
            await asyncio.Event().wait()
        return self.ahead.pop(0)

    async def is_away(self, found: FoundFolder) -> bool:
        return self.away


@dataclass
class Service:
    name: str
    error: Exception | None = None
    loses_folder: bool = True
    folder_lost: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, stop: asyncio.Event) -> None:
        if self.error:
            raise self.error
        if self.loses_folder:
            self.folder_lost.set()


def sessions(finder: Any, services: dict[str, Any], built: list[str]) -> IngestSessions:
    def build(found: FoundFolder) -> Any:
        built.append(found.folder.id)
        return services[found.folder.id]

    return IngestSessions(finder, build)


async def test_each_folder_gets_a_service_until_one_is_stopped() -> None:
    built: list[str] = []
    finder = Finder([found("a"), found("b"), found("c")])
    services = {"a": Service("a"), "b": Service("b", loses_folder=False)}
    await sessions(finder, services, built).run(asyncio.Event())
    assert built == ["a", "b"]


async def test_a_stop_while_it_waits_ends_it() -> None:
    built: list[str] = []
    finder = Finder([found("a")])
    await sessions(finder, {"a": Service("a")}, built).run(finder.stop)
    assert built == ["a"]


async def test_what_fails_because_the_folder_went_is_no_error() -> None:
    built: list[str] = []
    services = {"a": Service("a", FileNotFoundError("gone")), "b": Service("b", OSError("disk"))}
    finder = Finder([found("a")])
    await sessions(finder, services, built).run(finder.stop)
    assert built == ["a"]
    finder = Finder([found("b")], away=False)
    with pytest.raises(OSError, match="disk"):
        await sessions(finder, services, built).run(asyncio.Event())
