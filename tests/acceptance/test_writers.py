"""Every writer, alone and all side by side: each file is stored as it is, and truly described."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.support.servers import SwiftServer
from tests.support.service import Site, open_site, write
from tests.writers.registry import WRITERS

pytestmark = [
    pytest.mark.integration,
    pytest.mark.acceptance,
    pytest.mark.writers,
    pytest.mark.timeout(300),  # the first test waits for all of it
]

SECONDS = 7.0  # about 16 MB: a part leaves before the end
ALONE_SPEED, TOGETHER_SPEED = 24.0, 2.0
PATIENCE_S = 30.0
WAYS = ("alone", "together")


@dataclass(slots=True)
class Outcome:
    """What became of the files; by folder, which is way/writer."""

    faults: dict[str, list[str]] = field(default_factory=dict)
    stored: dict[str, int] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)
    open_uploads: list[str] = field(default_factory=list)
    exit_code: int | None = None
    errors: list[dict[str, Any]] = field(default_factory=list)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def outcome(
    s3_server: SwiftServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Outcome]:
    """One service process for all of it."""
    cache = tmp_path_factory.mktemp("writers-cache")
    async with open_site(s3_server, tmp_path_factory.mktemp("writers")) as site:
        await site.service.start()
        for name in WRITERS:
            await _write(site, "alone", name, ALONE_SPEED, cache)
        async with asyncio.TaskGroup() as writers:
            for name in WRITERS:
                writers.create_task(_write(site, "together", name, TOGETHER_SPEED, cache))
        yield await _judge(site)


async def _write(site: Site, way: str, name: str, speed: float, cache: Path) -> None:
    output = site.watched / way / name / f"recording{WRITERS[name].suffix}"
    await write(name, output, SECONDS, speed, cache)


async def _judge(site: Site) -> Outcome:
    outcome = Outcome()
    files = site.files()
    late = await site.described(files, PATIENCE_S)
    streams = await site.streams()
    for relpath in sorted(files):
        folder, _, name = relpath.rpartition("/")
        outcome.stored[folder] = outcome.stored.get(folder, 0) + 1
        if relpath in late:
            found = [f"not described: {streams.get(relpath)}"]
        else:
            found = await _faults(site, relpath, WRITERS[folder.rpartition("/")[2]].unplayable)
        outcome.faults.setdefault(folder, []).extend(f"{name}: {fault}" for fault in found)
    outcome.unexpected = [
        f"{stream!r} {stream.reason}"
        for relpath, stream in streams.items()
        if relpath not in files and not _may_remain(stream.relpath, stream.state)
    ]
    outcome.open_uploads = [upload.key for upload in await site.store.list_uploads("")]
    outcome.exit_code = await site.service.stop()
    outcome.errors = site.errors()
    return outcome


def _may_remain(relpath: str, state: str) -> bool:
    """A record of a name that is gone: of nothing that was sent, or of the name before a rename."""
    return state == "dropped" or "/renamed/" in relpath


async def _faults(site: Site, relpath: str, unplayable: tuple[str, ...]) -> list[str]:
    held = await site.held(relpath)
    found = await asyncio.to_thread(held.faults, site.watched / relpath)
    is_playable = not any(fnmatch(os.path.basename(relpath), pattern) for pattern in unplayable)
    if held.document["playable"] is not is_playable:
        found.append(f"playable is {held.document['playable']}: {held.document['playable_reason']}")
    if held.document["stream_id"] != held.stream.id:
        found.append("the document is of another stream")
    return found


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("way", WAYS)
def test_stored_as_it_is(outcome: Outcome, way: str, name: str) -> None:
    folder = f"{way}/{name}"
    assert outcome.stored[folder] > 0
    assert outcome.faults[folder] == []


def test_nothing_else_is_left(outcome: Outcome) -> None:
    assert outcome.unexpected == []
    assert outcome.open_uploads == []


def test_no_errors_and_a_clean_end(outcome: Outcome) -> None:
    unexpected = [error for error in outcome.errors if not _is_expected(error)]
    assert [json.dumps(error) for error in unexpected] == []
    assert outcome.exit_code == 0


def _is_expected(error: dict[str, Any]) -> bool:
    """A recorder that cuts its file off, in order to use it again, loses what it had."""
    return "truncated" in str(error.get("reason")) and "re_recorded" in str(error.get("file_path"))
