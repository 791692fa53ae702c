"""Redis refuses, hangs, restarts, forgets, and answers that it cannot write."""

import asyncio
from typing import Any

from redis.asyncio import Redis
from tests.faults.registry import scenario
from tests.faults.world import MIB, World

RATE = 8 * MIB
CLIENTS = 60


async def _command(world: World, *words: str) -> None:
    async with Redis.from_url(world.valkey.url) as client:
        send: Any = client.execute_command
        await send(*words)


async def _record(world: World, tasks: asyncio.TaskGroup, files: int = 2) -> None:
    """Recorders have begun, and first parts are stored."""
    tasks.create_task(world.write_mixed(files, rate=RATE))
    await world.s3.seen("UploadPart")


@scenario("redis", short=True)
async def flushall_in_mid_upload(world: World) -> None:
    await world.put("before.mp4", world.random.randbytes(MIB))
    await world.ingest()
    async with asyncio.TaskGroup() as tasks:
        await _record(world, tasks)
        await asyncio.sleep(world.random.uniform(0, 1.5))
        await world.valkey.flush()


@scenario("redis", short=True)
async def flushall_while_down(world: World) -> None:
    """Kill, FLUSHALL, start: all is found again in S3."""
    for number in range(5):
        await world.put(f"old/{number}.mp4", world.random.randbytes(MIB))
    first = await world.ingest()
    async with asyncio.TaskGroup() as tasks:
        await _record(world, tasks)
        await asyncio.sleep(world.random.uniform(0, 1.5))
        await first.kill()
        await world.valkey.flush()
        await world.ingest()


@scenario("redis")
async def restart_with_data(world: World) -> None:
    await world.ingest()
    async with asyncio.TaskGroup() as tasks:
        await _record(world, tasks)
        world.valkey.kill()
        await asyncio.sleep(1)
        await world.valkey.start()


@scenario("redis")
async def restart_without_data(world: World) -> None:
    await world.ingest()
    async with asyncio.TaskGroup() as tasks:
        await _record(world, tasks)
        await world.valkey.flush()
        await world.valkey.restart()


@scenario("redis")
async def gone_for_seconds(world: World) -> None:
    """Longer than the lease: connections are refused."""
    await world.ingest()
    async with asyncio.TaskGroup() as tasks:
        await _record(world, tasks)
        await world.redis.stop()
        await asyncio.sleep(4)
        await world.redis.start()


@scenario("redis")
async def gone_for_a_minute(world: World) -> None:
    """Recordings begin, go on and end meanwhile."""
    await world.ingest()
    async with asyncio.TaskGroup() as tasks:
        await _record(world, tasks)
        await world.redis.stop()
        await asyncio.sleep(20)
        tasks.create_task(world.write("meanwhile.mp4", 17 * MIB, rate=RATE))
        await asyncio.sleep(40)
        await world.redis.start()


@scenario("redis", short=True)
async def connection_storm(world: World) -> None:
    """Others take every connection that Redis has; ours are cut and find no place."""
    await world.ingest()
    async with asyncio.TaskGroup() as tasks:
        await _record(world, tasks)
        await _command(world, "CONFIG", "SET", "maxclients", str(CLIENTS))
        others = [
            await asyncio.open_connection("127.0.0.1", world.valkey.port) for _ in range(CLIENTS)
        ]
        for _ in range(5):
            world.redis.cut()
            await asyncio.sleep(world.random.uniform(0.3, 0.9))
        for _, writer in others:
            writer.close()


@scenario("redis")
async def hangs_for_seconds(world: World) -> None:
    await world.ingest()
    async with asyncio.TaskGroup() as tasks:
        await _record(world, tasks)
        world.redis.hang()
        await asyncio.sleep(6.5)
        world.redis.flow()


@scenario("redis")
async def connections_cut(world: World) -> None:
    await world.ingest()
    async with asyncio.TaskGroup() as tasks:
        await _record(world, tasks)
        for _ in range(8):
            world.redis.cut()
            await asyncio.sleep(world.random.uniform(0.05, 0.4))


@scenario("redis")
async def slow_answers(world: World) -> None:
    world.redis.delay_s = 0.15
    await world.ingest()
    await world.write_mixed(3)


@scenario("redis", short=True)
async def readonly_for_a_while(world: World) -> None:
    await world.ingest()
    async with asyncio.TaskGroup() as tasks:
        await _record(world, tasks)
        await _command(world, "REPLICAOF", "127.0.0.1", "1")
        await asyncio.sleep(2.5)
        await _command(world, "REPLICAOF", "NO", "ONE")


@scenario("redis")
async def out_of_memory_for_a_while(world: World) -> None:
    await world.ingest()
    async with asyncio.TaskGroup() as tasks:
        await _record(world, tasks)
        await _command(world, "CONFIG", "SET", "maxmemory", "1")
        await asyncio.sleep(2.5)
        await _command(world, "CONFIG", "SET", "maxmemory", "0")


@scenario("redis")
async def misconf_for_a_while(world: World) -> None:
    """It cannot save to its disk, and says so to every write."""
    await world.ingest()
    dump = world.folder / "valkey" / "redis" / "dump.rdb"
    async with asyncio.TaskGroup() as tasks:
        await _record(world, tasks)
        await asyncio.to_thread(dump.mkdir)
        await _command(world, "CONFIG", "SET", "save", "3600 1")
        await _command(world, "BGSAVE")
        await asyncio.sleep(3)
        await asyncio.to_thread(dump.rmdir)
        await _command(world, "CONFIG", "SET", "save", "")


@scenario("redis")
async def away_at_start(world: World) -> None:
    await world.redis.stop()
    await world.put("rec.mp4", world.random.randbytes(2 * MIB))
    instance = world.new_instance()
    await instance.launch()
    await asyncio.sleep(2.5)
    await world.redis.start()
    await instance.ready()


@scenario("redis")
async def both_servers_gone(world: World) -> None:
    await world.ingest()
    async with asyncio.TaskGroup() as tasks:
        await _record(world, tasks)
        await world.redis.stop()
        await world.s3.stop()
        await asyncio.sleep(3)
        await world.s3.start()
        await asyncio.sleep(1)
        await world.redis.start()


@scenario("redis")
async def emptied_again_and_again(world: World) -> None:
    await world.ingest()
    async with asyncio.TaskGroup() as tasks:
        await _record(world, tasks, 3)
        for _ in range(4):
            await asyncio.sleep(world.random.uniform(0.1, 0.9))
            await world.valkey.flush()


@scenario("redis", patience_s=140)
async def emptied_and_killed(world: World) -> None:
    """FLUSHALL, and a kill before anything could be written again. An upload that had nothing by
    which it could be known again is an orphan, which is seen to after the grace."""
    world.settings["ORPHAN_GRACE_SECONDS"] = "60"
    instance = await world.ingest()
    async with asyncio.TaskGroup() as tasks:
        await _record(world, tasks)
        for _ in range(2):
            await asyncio.sleep(world.random.uniform(0.1, 0.8))
            await world.valkey.flush()
            await instance.kill()
            instance = await world.ingest()
