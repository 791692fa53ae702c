"""Another user of the machine plays with the HTTP ports."""

import asyncio
import os
from pathlib import Path

import psutil
from tests.faults import http_fuzzer
from tests.faults.instance import Instance
from tests.faults.judge import examine_log
from tests.faults.registry import CannotRunError, scenario
from tests.faults.world import MIB, World
from tests.support.other_user import start_as_other
from tests.support.temporal_server import CODEC_KEY, TemporalServer

PROGRAM = Path(http_fuzzer.__file__).read_text()
SHORT_S, LONG_S = 4.0, 60.0
MEMORY = 60 * MIB  # buffers that it keeps, and what it imports when it is first asked
FEWEST = 100  # connections; less is no attack


async def _feed(world: World, instance: Instance, seconds: float) -> None:
    """Until it is over; then everything must be as before."""
    if os.geteuid() != 0:
        raise CannotRunError("only root can become another user")
    process = psutil.Process(instance.pid)
    files, memory = process.num_fds(), process.memory_info().rss
    attack = start_as_other(
        PROGRAM, str(instance.port), str(world.random.getrandbits(30)), str(seconds)
    )
    try:
        told, errors = await asyncio.to_thread(attack.communicate, timeout=seconds + 30)
    finally:
        attack.kill()
        attack.wait()
    if attack.returncode or int(told) < FEWEST:
        raise AssertionError(f"the attack ended with {attack.returncode}: {told} {errors}")
    await instance.ready()
    async with asyncio.timeout(40):
        while process.num_fds() > files + 40:  # noqa: ASYNC110  # its pools of connections may stay
            await asyncio.sleep(0.1)
    if (more := process.memory_info().rss - memory) > MEMORY:
        world.faults.append(f"{instance.name} keeps {more / MIB:.0f} MiB more than before")
    if "a request was no HTTP" not in await instance.said():
        world.faults.append("nothing that came was malformed")


async def _fuzz(world: World, seconds: float) -> None:
    instance = await world.ingest()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_feed(world, instance, seconds))
        tasks.create_task(world.write("cam/rec.mp4", int(4 * MIB * seconds), rate=4 * MIB))


@scenario("http", short=True)
async def http_fuzz(world: World) -> None:
    """While a recording is uploaded, which goes on as if nobody had come."""
    await _fuzz(world, SHORT_S)


@scenario("http", runs=2)
async def http_fuzz_at_length(world: World) -> None:
    """With all that can be switched on."""
    world.settings["API_TOKEN"] = world.settings["WEBHOOK_SECRET"] = "0123456789abcdef"
    await _fuzz(world, LONG_S)


@scenario("http")
async def http_fuzz_of_a_worker(world: World) -> None:
    await world.ingest()
    temporal = TemporalServer(world.folder / "engine")
    settings = world.environment(
        TEMPORAL_ADDRESS=temporal.address, TEMPORAL_CODEC_KEY=CODEC_KEY.decode()
    )
    settings["WORKER_PORT"] = settings["PROM_PORT"]
    worker = Instance("worker", settings, world.folder, command=("cefmp4", "worker"))
    await temporal.start()
    try:
        await worker.start()
        await _feed(world, worker, SHORT_S * 5)
    finally:
        code = await worker.stop() if worker.is_running else 0
        await temporal.stop()
    world.faults += [f"the worker ended with {code}"] if code else []
    world.faults += await examine_log(worker.log)
