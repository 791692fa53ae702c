"""What makes one file look like another, or like one that is finished: inodes that are used again,
dates that are copied, clocks that are set."""

import asyncio
import os
from pathlib import Path

from tests.faults.disks import disk, take_inode
from tests.faults.instance import Instance
from tests.faults.registry import scenario
from tests.faults.stepped_clock import SteppedClock
from tests.faults.world import MIB, World

DISK = 160 * MIB
SIZE, DATE = 12 * MIB, 1_700_000_000
GONE_S = 30.0
SETTLE_S = 3.0
PIECES = 6
RATE, IN_FLIGHT_BYTES = 12 * MIB, 15 * MIB


async def copy_on_to_card(world: World, relpath: str, inode: int | None = None) -> int:
    """As `rsync -t` does: another name first, its date, then its own name. Of one size and one date
    each; `inode`: the one it must get. Returns the inode."""
    data = world.random.randbytes(SIZE)
    path = world.watched / relpath
    beside = path.with_name(f".{path.name}.Xy12Zq")

    def make() -> Path:
        beside.write_bytes(data)
        return beside

    def copy() -> int:
        path.parent.mkdir(parents=True, exist_ok=True)
        made = make() if inode is None else take_inode(inode, make)
        os.utime(made, (DATE, DATE))
        return made.rename(path).stat().st_ino

    found = await asyncio.to_thread(copy)
    await world.adopt(relpath, interim=False)
    return found


async def closed(world: World, instance: Instance) -> None:
    """Waits until the service has no file of the folder open: only then is an inode free."""
    async with asyncio.timeout(GONE_S):
        while instance.leaks(world.watched):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@scenario("identity", short=True)
async def inodes_are_used_again(world: World) -> None:
    """Each recording gets the inode, the size and the date of the one before, which was deleted
    when it was stored: by hand, or while nobody watched."""
    await world.closing.enter_async_context(disk(world.watched, DISK))
    instance = await world.ingest()
    inode = None
    for number in range(4):
        inode = await copy_on_to_card(world, f"{number}.mp4", inode)
        await world.stored(number + 1)
        await closed(world, instance)
        is_watched = number % 2 == 0
        if not is_watched:
            await instance.kill()
        os.unlink(world.watched / f"{number}.mp4")
        if not is_watched:
            instance = await world.ingest()


@scenario("identity", runs=3)
async def inodes_are_used_again_with_kills(world: World) -> None:
    """The service deletes them itself, and dies now and then."""
    world.settings["AFTER_UPLOAD"] = "delete"
    await world.closing.enter_async_context(disk(world.watched, DISK))
    instance = await world.ingest()
    for number in range(5):
        await copy_on_to_card(world, f"{number}.mp4")
        if world.random.random() < 0.5:
            await asyncio.sleep(world.random.uniform(0.0, 2.0))
            await instance.kill()
            instance = await world.ingest()
        async with asyncio.timeout(GONE_S):
            while (world.watched / f"{number}.mp4").exists():  # noqa: ASYNC110
                await asyncio.sleep(0.05)


async def write_in_pieces(world: World, relpath: str, clock: SteppedClock, *steps: float) -> None:
    """One open and close for each piece, and a pause that is shorter than the settle time; the
    clock is set now and then."""
    path = world.watched / relpath
    for number in range(PIECES):
        await asyncio.to_thread(_append, path, world.random.randbytes(2 * MIB))
        await asyncio.sleep(SETTLE_S * world.random.uniform(0.15, 0.3))
        clock.set_ahead(steps[number % len(steps)])
        await asyncio.sleep(SETTLE_S * world.random.uniform(0.15, 0.3))
    await world.adopt(relpath, interim=False)


def _append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


@scenario("identity", short=True)
async def clock_is_set_while_files_grow(world: World) -> None:
    """By some seconds, forwards and backwards: no version is stored that nobody finished."""
    world.settings["SETTLE_SECONDS"] = str(SETTLE_S)
    clock = SteppedClock(world)
    await world.ingest(command=clock.command)
    clock.set_ahead(world.random.uniform(2 * SETTLE_S, 20))
    async with asyncio.TaskGroup() as writers:
        for number in range(2):
            steps = [world.random.uniform(-20, 20) for _ in range(PIECES)]
            writers.create_task(write_in_pieces(world, f"{number}.mp4", clock, *steps))


@scenario("identity")
async def clock_was_set_before_the_start(world: World) -> None:
    """The first look at a growing file is with a clock that is ahead of its change time."""
    world.settings["SETTLE_SECONDS"] = str(SETTLE_S)
    clock = SteppedClock(world)
    ahead = world.random.uniform(SETTLE_S, 20)
    clock.set_ahead(ahead)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(write_in_pieces(world, "r.mp4", clock, ahead))
        await asyncio.sleep(SETTLE_S / 2)
        await world.ingest(command=clock.command)


@scenario("identity", short=True)
async def renamed_emptied_and_killed_in_mid_upload(world: World) -> None:
    """Nothing remembers the upload, and its key has the former name: only its bytes tell it."""
    size = 40 * MIB
    world.most_part_bytes = size + IN_FLIGHT_BYTES
    first = await world.ingest()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(world.write("a.mp4", size, rate=RATE))
        await world.s3.seen("UploadPart", 3)
        await first.kill()
        os.rename(world.watched / "a.mp4", world.watched / "b.mp4")
        await world.valkey.flush()
    world.wanted["b.mp4"] = world.wanted.pop("a.mp4")
    await world.ingest()
