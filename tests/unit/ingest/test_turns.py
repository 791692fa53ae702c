"""Who may begin, when there are more files than places."""

import asyncio
import os
from collections.abc import Callable

import pytest
from tests.support.ingest_site import Site
from tests.support.ingest_world import PART, bytes_of

from cefmp4.ingest.router import STUCK_S
from cefmp4.model.event import EventKind, StreamEvent
from cefmp4.model.stream import FileStamp

PLACES = 4  # of the router under test


def names(folder: str, count: int) -> list[str]:
    return [f"{folder}/{number}.mp4" for number in range(count)]


def write(site: Site, relpaths: list[str], parts: int = 3) -> None:
    for relpath in relpaths:
        (site.world.folder / relpath).parent.mkdir(exist_ok=True)
        site.world.write(bytes_of(parts * PART or 1), name=relpath)


async def reached(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  # what a router has begun sets no event
            await asyncio.sleep(0.01)


def begun(site: Site) -> set[str]:
    return {processor.source.relpath for processor in site.router.processors}


async def occupy(site: Site, relpaths: list[str]) -> None:
    write(site, relpaths)
    for relpath in relpaths:
        site.tell(EventKind.CREATE, relpath)
    await reached(lambda: len(begun(site)) == PLACES)


async def test_who_waits_has_no_task_and_no_open_file(site: Site) -> None:
    files = names("evil", 300)
    write(site, files, parts=0)
    before, open_files = len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd"))
    for relpath in files:
        site.tell(EventKind.CREATE, relpath)
    await reached(lambda: len(begun(site)) == PLACES)
    assert site.router.pending == 300 - PLACES
    assert len(asyncio.all_tasks()) <= before + 10 * PLACES
    assert len(os.listdir("/proc/self/fd")) <= open_files + 3 * PLACES


async def test_one_folder_with_growing_files_makes_room_for_another(site: Site) -> None:
    """And goes on with what it had sent when its turn comes again."""
    evil, cam = names("evil", 7), "cam/1.mp4"
    await occupy(site, evil)
    write(site, [cam])
    site.tell(EventKind.CREATE, cam)
    now = site.world.clock()
    for step in (0.0, STUCK_S / 2, STUCK_S + 0.1):
        assert cam not in begun(site)
        await site.router.tend_waiting(now + step)
    await reached(lambda: cam in begun(site))
    assert len(begun(site)) == PLACES
    await site.router.tend_waiting(now + 3 * STUCK_S)
    await site.router.tend_waiting(now + 6 * STUCK_S)
    await asyncio.sleep(0.05)
    assert cam in begun(site), "both have their share, and nobody gives way to and fro"
    site.writers_end.set()
    await site.settled()
    for relpath in [*evil, cam]:
        assert (await site.known(relpath)).is_proven
    assert len(site.world.checkpoints._streams) == len(evil) + 1
    assert site.world.store.open_uploads == {}


async def test_files_of_one_folder_do_not_push_each_other_away(site: Site) -> None:
    await occupy(site, names("evil", 7))
    there, now = begun(site), site.world.clock()
    for step in range(5):
        await site.router.tend_waiting(now + step * STUCK_S)
    await asyncio.sleep(0.05)
    assert begun(site) == there


async def test_what_a_look_found_leaves_a_place_for_what_grows(site: Site) -> None:
    old, cam = names("old", 9), "old/now.mp4"
    write(site, old)
    seen = {relpath: stamp(site, relpath) for relpath in old}
    site.router.handle(
        [StreamEvent(kind=EventKind.CREATE, relpath=relpath) for relpath in old], seen
    )
    await reached(lambda: len(begun(site)) == PLACES - 1)
    write(site, [cam])
    site.tell(EventKind.CREATE, cam)
    await reached(lambda: cam in begun(site))


@pytest.mark.parametrize("goes", ["deleted", "renamed to what nobody wants", "renamed"])
async def test_a_file_that_goes_while_it_waits_never_begins(site: Site, goes: str) -> None:
    await occupy(site, names("evil", PLACES + 1))
    late = f"evil/{PLACES}.mp4"
    (waiting,) = set(names("evil", PLACES + 1)) - begun(site)
    assert waiting == late
    path = site.world.folder / late
    if goes == "deleted":
        path.unlink()
        site.tell(EventKind.DELETE, late)
    else:
        new = "evil/new.mp4" if goes == "renamed" else "evil/new.old"
        path.rename(site.world.folder / new)
        site.tell(EventKind.MOVE, new, late)
    assert site.router.pending == (goes == "renamed")
    site.writers_end.set()
    await site.settled()
    assert await site.world.checkpoints.load_stream_at("", late) is None
    assert (await site.world.checkpoints.load_stream_at("", "evil/new.mp4") is not None) == (
        goes == "renamed"
    )


def stamp(site: Site, relpath: str) -> FileStamp:
    facts = os.stat(site.world.folder / relpath)
    return FileStamp(facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
