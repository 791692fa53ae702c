"""kill -9 again and again, at moments drawn by the seed with weight on the interesting ones, and
what else befalls a machine between them."""

import asyncio
from dataclasses import dataclass

from tests.faults.instance import Instance
from tests.faults.registry import scenario
from tests.faults.s3_proxy import Exchange, Fault
from tests.faults.troubles import Machine, give_machine
from tests.faults.world import MIB, World

KILLS = 10
PATIENCE_S = 3.0  # for a moment that does not come; then it is killed all the same
MOMENTS = {  # a request that is before, in or just behind a server, and how often it is drawn
    "UploadPart": 6,
    "CompleteMultipartUpload": 5,
    "PutObject": 4,
    "HeadObject": 2,
    "CreateMultipartUpload": 3,
    "ListParts": 2,
    "AbortMultipartUpload": 1,
    "": 6,  # any moment of the clock
}
TROUBLES = ("", "", "frozen", "store full", "clock set", "inode reused", "not mounted")
RATE = 3 * MIB // 2  # three cameras leave a busy machine time for what it is hurt with
STAGES = ("before", "in the middle", "after", "just answered")


@dataclass(slots=True)
class Blow:
    """One kill, at one stage of one request."""

    instance: Instance
    stage: str
    done: asyncio.Event

    def fault(self) -> Fault:
        async def fault(exchange: Exchange) -> bool:
            if self.stage == "in the middle":
                await exchange.cut_off_upstream(
                    await exchange.read_body(exchange.request.length // 2)
                )
            elif self.stage == "after":
                await exchange.fetch()
            elif self.stage == "just answered":
                await exchange.forward()
            await self.instance.kill()
            self.done.set()
            return False

        return fault


async def _strike(world: World, instance: Instance) -> None:
    (operation,) = world.random.choices([*MOMENTS], [*MOMENTS.values()])
    if not operation:
        await asyncio.sleep(world.random.uniform(0.0, 1.2))
        await instance.kill()
        return
    blow = Blow(instance, world.random.choice(STAGES), asyncio.Event())
    rule = world.s3.add(blow.fault(), operation, skip=world.random.randint(0, 2))
    try:
        async with asyncio.timeout(PATIENCE_S):
            await blow.done.wait()
    except TimeoutError:
        await instance.kill()
    rule.times = 0


async def _record_on(machine: Machine, camera: int, is_enough: asyncio.Event) -> None:
    """One recording after another, as cameras make them."""
    world, number = machine.world, 0
    while not is_enough.is_set():
        number += 1
        size = world.random.randint(5 * MIB, 9 * MIB)
        kind = world.random.choice(["append", "patch_head", "patch_far", "rename_at_end"])
        async with machine.recordings.passing():
            await world.write(f"cam{camera}/{number}.mp4", size, behaviour=kind, rate=RATE)


async def _blow(machine: Machine, instance: Instance) -> Instance:
    """A kill, and mostly something else with it, before it or while no service runs."""
    world = machine.world
    trouble = world.random.choice(TROUBLES)
    if trouble == "frozen":
        await machine.freeze(instance)
    elif trouble == "store full":
        await machine.fill_store()
    elif trouble == "clock set":
        machine.set_clock()
    await _strike(world, instance)
    if world.random.random() < 0.1:
        await world.valkey.flush()
    if trouble == "inode reused":
        await machine.reuse_inode()
    instance = world.new_instance(command=machine.clock.command)
    if trouble == "not mounted":
        await machine.start_unmounted(instance)
    else:
        await instance.start()
    return instance


async def _under_blows(machine: Machine) -> None:
    instance = await machine.world.ingest(command=machine.clock.command)
    is_enough = asyncio.Event()
    async with asyncio.TaskGroup() as cameras:
        for camera in range(3):
            cameras.create_task(_record_on(machine, camera, is_enough))
        for _ in range(KILLS):
            instance = await _blow(machine, instance)
        is_enough.set()


@scenario("process", short=True, runs=8, patience_s=90)
async def killed_at_drawn_moments(world: World) -> None:
    await _under_blows(await give_machine(world))


@scenario("process", runs=2, patience_s=90)
async def killed_at_drawn_moments_in_company(world: World) -> None:
    """The one that is not killed takes over what the other had."""
    machine = await give_machine(world)
    await world.ingest()
    await _under_blows(machine)
