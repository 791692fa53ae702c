"""Who may begin, when there are more files than places."""

import asyncio
import os

import pytest
from tests.support.rig import PART, bytes_of
from tests.support.routed_rig import PLACES, RoutedRig

from cefmp4.ingest.router import STUCK_S
from cefmp4.model.event import EventKind, StreamEvent
from cefmp4.recording.file import SourceFile

pytestmark = pytest.mark.leaps


def names(folder: str, count: int) -> list[str]:
    return [f"{folder}/{number}.mp4" for number in range(count)]


def write(routed: RoutedRig, relpaths: list[str], parts: int = 3) -> None:
    for relpath in relpaths:
        (routed.rig.folder / relpath).parent.mkdir(exist_ok=True)
        routed.rig.write(bytes_of(parts * PART or 1), name=relpath)


def begun(routed: RoutedRig) -> set[str]:
    return {processor.source.relpath for processor in routed.router.processors}


async def occupy(routed: RoutedRig, relpaths: list[str]) -> None:
    write(routed, relpaths)
    for relpath in relpaths:
        routed.tell(EventKind.CREATE, relpath)
    await routed.until(lambda: len(begun(routed)) == PLACES)


async def test_who_waits_has_no_task_and_no_open_file(routed: RoutedRig) -> None:
    files = names("evil", 300)
    write(routed, files, parts=0)
    before, open_files = len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd"))
    for relpath in files:
        routed.tell(EventKind.CREATE, relpath)
    await routed.until(lambda: len(begun(routed)) == PLACES)
    assert routed.router.pending == 300 - PLACES
    assert len(asyncio.all_tasks()) <= before + 10 * PLACES
    assert len(os.listdir("/proc/self/fd")) <= open_files + 3 * PLACES


async def test_one_folder_with_growing_files_makes_room_for_another(routed: RoutedRig) -> None:
    """And goes on with what it had sent when its turn comes again."""
    evil, cam = names("evil", 7), "cam/1.mp4"
    await occupy(routed, evil)
    write(routed, [cam])
    routed.tell(EventKind.CREATE, cam)
    now = routed.rig.clock()
    for step in (0.0, STUCK_S / 2, STUCK_S + 0.1):
        assert cam not in begun(routed)
        await routed.router.tend_waiting(now + step)
    await routed.until(lambda: cam in begun(routed))
    assert len(begun(routed)) == PLACES
    await routed.router.tend_waiting(now + 3 * STUCK_S)
    await routed.router.tend_waiting(now + 6 * STUCK_S)
    await asyncio.sleep(0.05)
    assert cam in begun(routed), "both have their share, and nobody gives way to and fro"
    routed.let_go()
    await routed.settled()
    for relpath in [*evil, cam]:
        assert (await routed.known(relpath)).is_proven
    assert len(routed.rig.checkpoints._streams) == len(evil) + 1
    assert routed.rig.store.open_uploads == {}


async def test_files_of_one_folder_do_not_push_each_other_away(routed: RoutedRig) -> None:
    await occupy(routed, names("evil", 7))
    there, now = begun(routed), routed.rig.clock()
    for step in range(5):
        await routed.router.tend_waiting(now + step * STUCK_S)
    await asyncio.sleep(0.05)
    assert begun(routed) == there


async def test_backlog_gives_its_place_to_what_grows(routed: RoutedRig) -> None:
    """And goes on with what it had sent when its turn comes again."""
    old, one, other = names("old", PLACES - 1), "a/1.mp4", "b/1.mp4"
    write(routed, [*old, one, other])
    find(routed, old)
    routed.tell(EventKind.CREATE, one)
    await routed.until(lambda: begun(routed) == {*old, one})
    routed.tell(EventKind.CREATE, other)
    now = routed.rig.clock()
    for step in (0.0, STUCK_S + 0.1):
        await routed.router.tend_waiting(now + step)
    await routed.until(lambda: begun(routed) > {one, other})
    assert len(begun(routed)) == PLACES
    routed.let_go()
    await routed.settled()
    for relpath in [*old, one, other]:
        assert (await routed.known(relpath)).is_proven
    assert len(routed.rig.checkpoints._streams) == PLACES + 1


async def test_what_grows_gives_way_to_no_backlog(routed: RoutedRig) -> None:
    await occupy(routed, names("cam", PLACES))
    write(routed, ["old/1.mp4"])
    find(routed, ["old/1.mp4"])
    there, now = begun(routed), routed.rig.clock()
    for step in range(5):
        await routed.router.tend_waiting(now + step * STUCK_S)
    await asyncio.sleep(0.05)
    assert begun(routed) == there
    assert routed.router.pending == 1


async def test_what_a_look_found_leaves_a_place_for_what_grows(routed: RoutedRig) -> None:
    old, cam = names("old", 9), "old/now.mp4"
    write(routed, old)
    find(routed, old)
    await routed.until(lambda: len(begun(routed)) == PLACES - 1)
    write(routed, [cam])
    routed.tell(EventKind.CREATE, cam)
    await routed.until(lambda: cam in begun(routed))


@pytest.mark.parametrize("goes", ["deleted", "renamed to what nobody wants", "renamed"])
async def test_a_file_that_goes_while_it_waits_never_begins(routed: RoutedRig, goes: str) -> None:
    await occupy(routed, names("evil", PLACES + 1))
    late = f"evil/{PLACES}.mp4"
    (waiting,) = set(names("evil", PLACES + 1)) - begun(routed)
    assert waiting == late
    path = routed.rig.folder / late
    if goes == "deleted":
        path.unlink()
        routed.tell(EventKind.DELETE, late)
    else:
        new = "evil/new.mp4" if goes == "renamed" else "evil/new.old"
        path.rename(routed.rig.folder / new)
        routed.tell(EventKind.MOVE, new, late)
    assert routed.router.pending == (goes == "renamed")
    routed.let_go()
    await routed.settled()
    assert await routed.rig.checkpoints.load_stream_at("", late) is None
    assert (await routed.rig.checkpoints.load_stream_at("", "evil/new.mp4") is not None) == (
        goes == "renamed"
    )


def find(routed: RoutedRig, relpaths: list[str]) -> None:
    """A look shows them, and no event tells of them."""
    seen = {}
    for relpath in relpaths:
        with SourceFile.open(str(routed.rig.folder), relpath) as source:
            seen[relpath] = source.stamp()
    events = [StreamEvent(kind=EventKind.CREATE, relpath=relpath) for relpath in relpaths]
    routed.router.handle(events, seen)
