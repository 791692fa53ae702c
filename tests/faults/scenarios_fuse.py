"""Writers, renames, removals and replacements below a FUSE mount, at every stage of a stream."""

import asyncio
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

from tests.faults.fuse_mount import watch_through_fuse
from tests.faults.registry import scenario
from tests.faults.s3_proxy import Exchange
from tests.faults.world import MIB, World

RATE = 8 * MIB
PATIENCE_S = 60  # the end of a file shows by its being quiet, and renames in the next look
SENT_AGAIN = 5  # parts that were on the wire, or of which only a beginning was there

Blow = Callable[[Path, Random], None]


@scenario("fuse", short=True, patience_s=PATIENCE_S)
async def fuse_writers(world: World) -> None:
    await watch_through_fuse(world)
    await world.ingest()
    await world.write_mixed(4, rate=RATE)
    await world.put("small.mp4", world.random.randbytes(MIB))


@scenario("fuse", patience_s=PATIENCE_S)
async def fuse_writers_and_kills(world: World) -> None:
    await watch_through_fuse(world)
    instance = await world.ingest()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(world.write_mixed(3, rate=RATE))
        for _ in range(2):
            await asyncio.sleep(world.random.uniform(0.3, 2))
            await instance.kill()
            instance = await world.ingest()


# What happens below the mount to a recording, and what the folder holds then.


def _rename(watched: Path, _random: Random) -> None:
    os.rename(watched / "rec.mp4", watched / "renamed.mp4")


def _remove(watched: Path, _random: Random) -> None:
    os.unlink(watched / "rec.mp4")


def _replace(watched: Path, random: Random) -> None:
    """By a longer one, which the old descriptor does not have all of, or by a shorter one, of which
    it has every byte, all of them wrong."""
    beside = watched / ".rec.mp4.new"
    beside.write_bytes(random.randbytes(random.choice([7 * MIB, 40 * MIB])))
    os.rename(beside, watched / "rec.mp4")


def _exchange_names(watched: Path, random: Random) -> None:
    """It is renamed, and another recording gets its name."""
    _rename(watched, random)
    beside = watched / ".other.new"
    beside.write_bytes(random.randbytes(9 * MIB))
    os.rename(beside, watched / "rec.mp4")


async def _adopt_all(world: World) -> None:
    """Every file that is there must be stored once; what had the name for a while may be, too."""
    world.wanted.clear()
    for path in sorted(world.watched.glob("*.mp4")):
        await world.adopt(path.name, interim=path.name == "rec.mp4")


async def _in_mid_upload(world: World, *, blow: Blow) -> None:
    await watch_through_fuse(world)
    await world.ingest()
    if blow is _rename:
        world.most_part_bytes = (30 + SENT_AGAIN * 5) * MIB
    async with asyncio.TaskGroup() as tasks:
        writing = tasks.create_task(world.write("rec.mp4", 30 * MIB, rate=RATE))
        await world.s3.seen("UploadPart", 2)
        await asyncio.to_thread(blow, world.watched, world.random)
        await writing
    await _adopt_all(world)


async def _at_the_end(world: World, *, blow: Blow, is_proven: bool) -> None:
    """In the middle of the proof, or when it is made and the object is described."""
    await watch_through_fuse(world)
    await world.ingest()
    is_done = asyncio.Event()

    async def strike(exchange: Exchange) -> bool:
        goes_on = await exchange.forward() if is_proven else True
        await asyncio.to_thread(blow, world.watched, world.random)
        is_done.set()
        return goes_on if is_proven else await exchange.forward()

    world.s3.add(strike, "CompleteMultipartUpload" if is_proven else "UploadPart")
    await world.put("rec.mp4", world.random.randbytes(17 * MIB))
    async with asyncio.timeout(PATIENCE_S):
        await is_done.wait()
    await _adopt_all(world)


for _name, _blow, _short in (
    ("renamed", _rename, True),
    ("removed", _remove, False),
    ("replaced", _replace, True),
    ("names-exchanged", _exchange_names, False),
):
    scenario("fuse", name=f"fuse-{_name}-in-mid-upload", short=_short, patience_s=PATIENCE_S)(
        partial(_in_mid_upload, blow=_blow)
    )
for _name, _blow in (
    ("renamed", _rename),
    ("replaced", _replace),
    ("names-exchanged", _exchange_names),
):
    for _is_proven in (False, True):
        scenario(
            "fuse",
            name=f"fuse-{_name}-while-{'described' if _is_proven else 'proven'}",
            patience_s=PATIENCE_S,
        )(partial(_at_the_end, blow=_blow, is_proven=_is_proven))
