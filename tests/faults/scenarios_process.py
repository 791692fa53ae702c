"""Services are killed, stopped, frozen and replaced, alone and in company."""

import asyncio
from functools import partial

from tests.faults import s3_faults as faults
from tests.faults.frozen import FrozenProof, append_again
from tests.faults.instance import Instance
from tests.faults.registry import scenario
from tests.faults.s3_proxy import Exchange
from tests.faults.world import MIB, World

RATE = 8 * MIB
IN_FLIGHT = 3  # parts, with one recorder of that speed
TAKEOVER_S = 8.0  # a lease of 2 s, the pause between two attempts, and two cores for everybody


async def _kill_at(world: World, *, operation: str, is_before: bool, skip: int = 0) -> None:
    """kill -9 while a request of this kind is on its way to the server, or was just answered."""
    first = await world.ingest()
    done = asyncio.Event()

    async def fault(exchange: Exchange) -> bool:
        if not is_before:
            await exchange.fetch()
        await first.kill()
        done.set()
        return False

    world.s3.add(fault, operation, skip=skip)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(world.write_mixed(2, rate=RATE))
        async with asyncio.timeout(30):
            await done.wait()
        await world.ingest()


for _operation, _skip, _short in (
    ("CreateMultipartUpload", 0, False),
    ("UploadPart", 2, False),
    ("CompleteMultipartUpload", 0, True),
    ("HeadObject", 0, False),
    ("PutObject", 0, False),
):
    for _is_before in (True, False):
        _name = f"kill-{'before' if _is_before else 'after'}-{_operation}"
        scenario("process", name=_name, short=_short and not _is_before)(
            partial(_kill_at, operation=_operation, is_before=_is_before, skip=_skip)
        )


@scenario("process", short=True, runs=5)
async def kill_at_random(world: World) -> None:
    """Several kills, at moments that the seed draws."""
    instance = await world.ingest()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(world.write_mixed(3, rate=RATE))
        for _ in range(3):
            await asyncio.sleep(world.random.uniform(0.0, 1.6))
            await instance.kill()
            instance = await world.ingest()


@scenario("process", runs=2)
async def kill_while_it_starts(world: World) -> None:
    first = await world.ingest()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(world.write_mixed(2, rate=RATE))
        await world.s3.seen("UploadPart")
        await first.kill()
        for _ in range(3):
            starting = world.new_instance()
            await starting.launch()
            await asyncio.sleep(world.random.uniform(0.8, 2.0))
            await starting.kill()
        await world.ingest()


@scenario("process", short=True)
async def killed_after_the_writer(world: World) -> None:
    """The recorder ends while nobody watches; nothing is sent twice but what was on the wire."""
    world.most_part_bytes = (60 + IN_FLIGHT * 5) * MIB
    first = await world.ingest()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(world.write("long.mp4", 60 * MIB, rate=24 * MIB))
        await world.s3.seen("UploadPart", 6)
        await first.kill()
    await world.ingest()


@scenario("process", short=True)
async def terminated_in_mid_upload(world: World) -> None:
    first = await world.ingest()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(world.write_mixed(2, rate=RATE))
        await world.s3.seen("UploadPart")
        await asyncio.sleep(world.random.uniform(0, 1))
        await _stop_well(world, first)
        await world.ingest()


@scenario("process")
async def terminated_while_servers_are_gone(world: World) -> None:
    first = await world.ingest()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(world.write_mixed(2, rate=RATE))
        await world.s3.seen("UploadPart")
        await world.s3.stop()
        await world.redis.stop()
        await asyncio.sleep(1)
        await _stop_well(world, first)
        await world.s3.start()
        await world.redis.start()
        await world.ingest()


async def _stop_well(world: World, instance: Instance) -> None:
    if (code := await instance.stop()) != 0:
        world.faults.append(f"SIGTERM ended {instance.name} with {code}")


@scenario("process", short=True)
async def zombie_is_fenced(world: World) -> None:
    """Frozen for longer than its lease, while another one takes over; then it goes on."""
    zombie = await world.ingest()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(world.write("rec.mp4", 36 * MIB, behaviour="patch_far", rate=RATE))
        await world.s3.seen("UploadPart", 2)
        zombie.pause()
        before = world.s3.calls["UploadPart"]
        await world.ingest()
        await world.s3.seen("UploadPart", before + 1, timeout_s=TAKEOVER_S)
        zombie.resume()


@scenario("process")
async def zombie_before_completion(world: World) -> None:
    """Frozen just when its Complete is on the wire; the other one stores the file."""
    zombie = await world.ingest()
    frozen = asyncio.Event()

    async def freeze(exchange: Exchange) -> bool:
        zombie.pause()
        frozen.set()
        await asyncio.sleep(8)
        await exchange.fetch()  # the late request arrives after all
        return exchange.reset()

    world.s3.add(freeze, "CompleteMultipartUpload")
    await world.write("rec.mp4", 17 * MIB, rate=16 * MIB)
    async with asyncio.timeout(20):
        await frozen.wait()
    await world.ingest()
    await asyncio.sleep(10)
    zombie.resume()


@scenario("process", short=True, runs=3)
async def frozen_beside_a_recorder(world: World) -> None:
    """Whoever opens a file that a frozen service guards gets it at once."""
    instance = await world.ingest()
    frozen = FrozenProof(world, instance)
    frozen.prepare()
    await world.write("rec.mp4", 14 * MIB, behaviour="patch_head", rate=16 * MIB)
    await frozen.begun()
    await append_again(world, "rec.mp4", MIB + world.random.randint(0, 1))
    await asyncio.sleep(world.random.uniform(0, 1))
    frozen.thaw()


@scenario("process")
async def frozen_and_killed_beside_a_recorder(world: World) -> None:
    instance = await world.ingest()
    frozen = FrozenProof(world, instance)
    frozen.prepare()
    await world.write("rec.mp4", 14 * MIB, rate=16 * MIB)
    await frozen.begun()
    await append_again(world, "rec.mp4", MIB + world.random.randint(0, 1))
    await instance.kill()
    frozen.is_thawed.set()
    await world.ingest()


@scenario("process", short=True)
async def two_share_a_folder(world: World) -> None:
    for number in range(12):
        await world.put(f"old/{number}.mp4", world.random.randbytes(MIB))
    first = await world.ingest()
    await world.ingest()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(world.write_mixed(3, rate=RATE))
        await world.s3.seen("UploadPart", 3)
        await first.kill()


@scenario("process", runs=3)
async def three_killed_in_turn(world: World) -> None:
    running = [await world.ingest() for _ in range(3)]
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(world.write_mixed(4, rate=RATE // 2))
        for _ in range(5):
            await asyncio.sleep(world.random.uniform(0.3, 1.2))
            victim = running.pop(world.random.randrange(len(running)))
            match world.random.choice(["kill", "stop", "freeze"]):
                case "kill":
                    await victim.kill()
                case "stop":
                    await _stop_well(world, victim)
                case "freeze":
                    victim.pause()
                    await asyncio.sleep(3)
                    victim.resume()
                    running.append(victim)
                    continue
            running.append(await world.ingest())


@scenario("process")
async def takeover_across_hosts(world: World) -> None:
    """As if the other one ran elsewhere: nothing but the lease says that it is dead."""
    world.settings["INSTANCE_ID"] = "elsewhere"
    frozen = await world.ingest()
    world.settings["INSTANCE_ID"] = "here"
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(world.write("rec.mp4", 40 * MIB, rate=RATE))
        await world.s3.seen("UploadPart", 2)
        frozen.pause()
        await world.ingest()
        before = world.s3.calls["UploadPart"]
        await world.s3.seen("UploadPart", before + 1, timeout_s=TAKEOVER_S)
    await frozen.kill()


@scenario("process", runs=3)
async def killed_in_a_storm(world: World) -> None:
    """Kills, while S3 and Redis misbehave."""
    kinds = [faults.refused(500, "InternalError"), faults.answer_lost, faults.reset_in_the_middle]
    instance = await world.ingest()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(world.write_mixed(3, rate=RATE))
        for _ in range(3):
            for _ in range(3):
                world.s3.add(world.random.choice(kinds), skip=world.random.randint(0, 6))
            await asyncio.sleep(world.random.uniform(0.2, 1.5))
            world.redis.cut()
            await instance.kill()
            instance = await world.ingest()


async def _kill_twice(world: World) -> None:
    instance = await world.ingest()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(world.write_mixed(3, rate=RATE))
        for _ in range(2):
            await asyncio.sleep(world.random.uniform(0.3, 1.6))
            await instance.kill()
            instance = await world.ingest()


@scenario("process", runs=2)
async def keys_without_stream_id(world: World) -> None:
    """A key that is taken is never written over, not by a restart either."""
    world.settings["S3_KEY_TEMPLATE"] = "recordings/{relpath}"
    await _kill_twice(world)
    await world.write("cam0/rec.mp4", 11 * MIB, rate=RATE)


@scenario("process", runs=2)
async def equal_parts(world: World) -> None:
    world.settings["PART_SIZING"] = "equal"
    await _kill_twice(world)


@scenario("process", runs=2)
async def polling_mode(world: World) -> None:
    world.settings |= {"WATCH_MODE": "polling", "RECONCILE_SECONDS": "1"}
    await _kill_twice(world)


@scenario("process", runs=2)
async def parts_by_the_client_library(world: World) -> None:
    world.settings["PART_TRANSFER"] = "client"
    for fault in (faults.reset_in_the_middle, faults.bytes_flipped, faults.answer_lost):
        world.s3.add(fault, "UploadPart", skip=world.random.randint(0, 3))
    await _kill_twice(world)
