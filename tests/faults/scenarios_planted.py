"""Does the harness notice? Each run breaks one safeguard of the service and must not end clean."""

import asyncio
from functools import partial

from tests.faults.registry import Run, scenario
from tests.faults.world import MIB, World

RATE = 16 * MIB
PATIENCE_S = 12


async def _patched(world: World, command: tuple[str, ...]) -> None:
    await world.ingest(command=command)
    await world.write("rec.mp4", 30 * MIB, behaviour="patch_far", rate=RATE)


async def _in_pairs(world: World, command: tuple[str, ...]) -> None:
    await world.ingest(command=command)
    for number in range(6):
        await world.put(f"{number}.mp4", world.random.randbytes(1000))


async def _together(world: World, command: tuple[str, ...]) -> None:
    for number in range(4):
        await world.put(f"{number}.mp4", world.random.randbytes(MIB))
    one, two = world.new_instance(command=command), world.new_instance(command=command)
    await asyncio.gather(one.start(), two.start())
    await world.write("rec.mp4", 20 * MIB, rate=RATE)


async def _killed_with_a_hole(world: World, command: tuple[str, ...]) -> None:
    """Part 1 is held until the end, so what is listed after a kill begins with a hole. Whoever
    overlooks it is saved by the proof, and sends all of it again."""
    world.most_part_bytes = (60 + 3 * 5) * MIB
    first = await world.ingest(command=command)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(world.write("rec.mp4", 60 * MIB, rate=24 * MIB))
        await world.s3.seen("UploadPart", 6)
        await first.kill()
    await world.ingest(command=command)


async def _deleted(world: World, command: tuple[str, ...]) -> None:
    await world.ingest(command=command)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(world.write("gone.mp4", 24 * MIB, rate=RATE))
        await world.s3.seen("UploadPart")
    (world.watched / "gone.mp4").unlink()
    world.wanted.clear()


_SCENES = {
    "skip-the-comparison": _patched,
    "drop-events": _in_pairs,
    "ignore-the-fence": _together,
    "trust-a-dense-listing": _killed_with_a_hole,
    "forget-to-abort": _deleted,
}


def _run_of(name: str) -> Run:
    command = ("tests.faults.planted", name, "ingest")
    return partial(_SCENES[name], command=command)


for _name in _SCENES:
    scenario("planted", name=f"planted-{_name}", runs=1, patience_s=PATIENCE_S, catches=True)(
        _run_of(_name)
    )
