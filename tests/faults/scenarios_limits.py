"""What a machine has runs out: events, watches, rights, space. And sizes that no disk can hold."""

import asyncio
import errno
import os
import subprocess
import sys
from pathlib import Path

import psutil
from tests.faults.registry import CannotRunError, scenario
from tests.faults.s3_proxy import Exchange
from tests.faults.small_store import give_small_store
from tests.faults.tiny_disk import tiny_disk
from tests.faults.world import MIB, World

from cefmp4.model.part import GIB

RATE = 12 * MIB
COMPLETES = 12
FLOOD = 24_000  # names; the kernel keeps 16,384 events
TIB = 1024 * GIB
MEMORY = 500 * MIB


async def _confined(world: World, way: str) -> tuple[str, ...]:
    """The command that starts the service in that way."""
    command = ("tests.faults.confined", way)
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-m", *command, "check"], check=False, capture_output=True
    )
    if done.returncode != 0:
        raise CannotRunError(done.stderr.decode(errors="replace").strip()[-200:])
    return (*command, "ingest")


@scenario("files")
async def flood_of_events(world: World) -> None:
    """Far more than the kernel keeps for a service that does not get to run for a moment; among
    them the only events of two files."""

    def flood() -> None:
        for number in range(FLOOD):
            path = world.watched / f"flood-{number % 200}.mp4.tmp"
            path.touch()
            path.unlink()

    instance = await world.ingest()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(world.write_mixed(2, rate=RATE))
        await world.s3.seen("UploadPart")
        instance.pause()
        await asyncio.to_thread(flood)
        await world.put("drowned/1.mp4", world.random.randbytes(MIB))
        await world.put("drowned/2.mp4", world.random.randbytes(7 * MIB))
        instance.resume()
        await world.logged("queue overflowed")


@scenario("files", short=True)
async def watch_limit_reached(world: World) -> None:
    """More folders than the kernel gives watches for, and more of them later."""
    command = await _confined(world, "few-watches")
    for number in range(6):
        await world.put(f"old{number}/a.mp4", world.random.randbytes(9000))
    await world.ingest(command=command)
    await world.logged("too few inotify watches")
    async with asyncio.TaskGroup() as tasks:
        for number in range(3):
            tasks.create_task(world.write(f"new{number}/deep/r.mp4", 9 * MIB, rate=RATE))


@scenario("files", short=True)
async def permission_lost(world: World) -> None:
    """Files and folders that may not be read for a while, before and after a restart: nothing of
    them is taken for gone."""
    command = await _confined(world, "plain-user")
    watched = world.watched
    await world.put("before/a.mp4", world.random.randbytes(MIB))
    first = await world.ingest(command=command)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(world.write("cam/rec.mp4", 26 * MIB, rate=RATE))
        await world.s3.seen("UploadPart")
        os.chmod(watched / "cam" / "rec.mp4", 0)
        await world.put("late.mp4.part", world.random.randbytes(MIB))
        os.chmod(watched / "late.mp4.part", 0)
        os.rename(watched / "late.mp4.part", watched / "late.mp4")
        world.wanted["late.mp4"] = world.wanted.pop("late.mp4.part")
        await asyncio.sleep(world.random.uniform(0.2, 1.0))
        await first.kill()
        os.chmod(watched / "before", 0)
        await world.ingest(command=command)
    await asyncio.sleep(3)
    os.chmod(watched / "before", 0o755)
    os.chmod(watched / "late.mp4", 0o644)
    os.chmod(watched / "cam" / "rec.mp4", 0o644)


@scenario("files", short=True)
async def disk_full(world: World) -> None:
    """The recorder's disk: what fitted is the recording. Then there is space again."""
    await world.enter(tiny_disk(world.watched, 24 * MIB))
    await world.ingest()
    await world.write("full.mp4", 40 * MIB, behaviour="until_full", rate=RATE)
    await world.stored(1)
    os.unlink(world.watched / "full.mp4")
    await world.write("next.mp4", 11 * MIB, rate=RATE)


@scenario("files", short=True)
async def store_disk_full(world: World) -> None:
    """The disk of the S3 server: everything waits, says why, and goes on once there is space."""
    store = await give_small_store(world)
    instance = await world.ingest()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(world.write_mixed(3, rate=RATE))
        await world.s3.seen("UploadPart", 2)
        await store.fill()
        await world.logged("the disk of the S3 server is full")
        await asyncio.sleep(world.random.uniform(0, 3))
        await store.free()
        await world.stored(3, timeout_s=20)
    if "reduce your request rate" in await instance.said():
        world.faults.append("the full disk was called too many requests")


@scenario("files")
async def killed_while_the_store_is_full(world: World) -> None:
    store = await give_small_store(world)
    instance = await world.ingest()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(world.write_mixed(3, rate=RATE))
        await world.s3.seen("UploadPart", 2)
        await store.fill()
        await world.logged("the disk of the S3 server is full")
        await instance.kill()
        instance = world.new_instance()
        await instance.launch()
        await instance.says("the disk of the S3 server is full")
        await asyncio.sleep(world.random.uniform(0, 2))
        await store.free()
        await instance.ready()


@scenario("files", patience_s=140)
async def store_disk_fills_while_objects_are_completed(world: World) -> None:
    """A Complete may fail half way then: the object is there, unlisted perhaps, and its upload. A
    beginning may, too: what nobody knows of is an orphan, which is seen to within two looks."""
    world.settings["ORPHAN_GRACE_SECONDS"] = "60"
    store, filling = await give_small_store(world), asyncio.Lock()

    async def fill_meanwhile(exchange: Exchange) -> bool:
        async with filling:
            full = asyncio.create_task(store.fill())
            await asyncio.sleep(world.random.uniform(0, 0.15))
            goes_on = await exchange.forward()
            await full
            await asyncio.sleep(0.1)
            await store.free()
        return goes_on

    await world.ingest()
    world.s3.add(fill_meanwhile, "CompleteMultipartUpload", times=COMPLETES)
    for number in range(COMPLETES):
        await world.write(f"cam/{number}.mp4", 6 * MIB)
    await world.stored(COMPLETES, timeout_s=90)


@scenario("files")
async def archive_disk_full(world: World) -> None:
    """Nowhere to move a stored file: it stays where it is, whole, and no torn copy lies there."""
    archive = world.folder / "archive"
    world.settings["AFTER_UPLOAD"] = f"move:{archive}"
    await world.enter(tiny_disk(archive, 4 * MIB))
    await world.ingest()
    await world.write("rec.mp4", 9 * MIB, rate=RATE)
    await world.put("small.mp4", world.random.randbytes(MIB))
    await world.stored(2)
    await world.logged("the local file stays")
    await world.adopt("rec.mp4", interim=False)  # still there, and whole
    there = sorted(path.name for path in await asyncio.to_thread(_files, archive))
    if there not in ([], ["small.mp4"]):
        world.faults.append(f"the archive holds {there}")


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@scenario("files")
async def log_cannot_be_written(world: World) -> None:
    """The disk of the logs is full: that is no reason to stop."""
    instance = world.new_instance(log=Path("/dev/full"))
    await instance.start()
    await world.write_mixed(2, rate=RATE)


@scenario("files", short=True)
async def one_tebibyte_preallocated(world: World) -> None:
    """A recorder asks for far more space than it will use, and gives it back at the end."""
    instance = await world.ingest()
    path, data = world.watched / "huge.mp4", world.random.randbytes(27 * MIB)
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        await _stretch(fd, TIB)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(world.write("other.mp4", 12 * MIB, rate=RATE))
            for at in range(0, len(data), MIB):
                await asyncio.to_thread(os.pwrite, fd, data[at : at + MIB], at)
                await asyncio.sleep(0.08)
        _watch_memory(world, instance.pid)
        await asyncio.to_thread(os.ftruncate, fd, len(data))
    finally:
        os.close(fd)
    await world.adopt("huge.mp4", interim=False)


@scenario("files")
async def one_tebibyte_sparse(world: World) -> None:
    """Finished, with a few bytes of data, and allowed: it is sent as long as it is there; others
    have their turn meanwhile, memory stays bounded, and nothing of it is left when it goes."""
    world.settings["HOLES_LIMIT_BYTES"] = str(TIB)
    world.settings["S3_ENDPOINT_URL"] = world.s3_server.endpoint_url  # past the proxy: many bytes
    path = world.watched / "sparse.mp4"
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        await _stretch(fd, TIB)
        os.pwrite(fd, b"data", TIB // 2)
    finally:
        os.close(fd)
    instance = await world.ingest()
    async with asyncio.timeout(30):
        while not (await instance.metrics()).get("cefmp4_open_multipart_uploads"):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    await world.write("other.mp4", 17 * MIB, rate=RATE)
    await world.stored(1)
    _watch_memory(world, instance.pid)
    await asyncio.to_thread(path.unlink)


async def _stretch(fd: int, size: int) -> None:
    try:
        await asyncio.to_thread(os.ftruncate, fd, size)
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise CannotRunError("this file system takes no such file") from error
        raise


def _watch_memory(world: World, pid: int) -> None:
    used = psutil.Process(pid).memory_info().rss
    if used > MEMORY:
        world.faults.append(f"it uses {used // MIB} MiB of memory")
