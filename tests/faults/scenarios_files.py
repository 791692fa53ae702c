"""The watched folder misbehaves: files that change, move and go under our hands."""

import asyncio
import os
import shutil

from tests.faults.registry import scenario
from tests.faults.world import MIB, World

from cefmp4.model.part import GIB

RATE = 12 * MIB


@scenario("files", short=True)
async def all_kinds_of_writers(world: World) -> None:
    await world.ingest()
    kinds = ["rewrite_all", "truncate_rewrite", "reopen_append", "replace", "preallocate"]
    async with asyncio.TaskGroup() as writers:
        for kind in kinds:
            size = world.random.randint(6 * MIB, 20 * MIB)
            writers.create_task(world.write(f"{kind}/rec.mp4", size, behaviour=kind, rate=RATE))


@scenario("files", short=True, patience_s=1500)
async def many_small_files_at_once(world: World) -> None:
    """Not looked into: that would cost more than all the rest, and prove nothing about them."""
    world.settings["FFPROBE_PATH"] = "/bin/false"
    count = world.small_files
    await world.ingest()

    for number in range(count):
        await world.put(f"{number % 50}/{number}.mp4", f"{world.seed} {number}".encode() * 9)


@scenario("files", short=True)
async def folder_removed_and_made_again(world: World) -> None:
    await world.put("old/kept.mp4", world.random.randbytes(MIB))
    await world.ingest()
    await world.stored(1)
    await asyncio.to_thread(shutil.rmtree, world.watched)
    await asyncio.sleep(1.5)
    await asyncio.to_thread(world.watched.mkdir)
    await world.write("new/rec.mp4", 9 * MIB, rate=RATE)


@scenario("files")
async def replaced_in_the_same_inode(world: World) -> None:
    """A finished and stored file is written over in place, with the same size."""
    await world.ingest()
    await world.write("rec.mp4", 12 * MIB)
    await world.stored(1)
    await world.write("rec.mp4", 12 * MIB)


@scenario("files")
async def patched_after_it_was_stored(world: World) -> None:
    """The next generation keeps what did not change."""
    await world.ingest()
    await world.write("rec.mp4", 22 * MIB)
    await world.stored(1)
    path = world.watched / "rec.mp4"

    def patch() -> bytes:
        with path.open("r+b") as file:
            file.seek(world.random.randrange(20 * MIB))
            file.write(world.random.randbytes(64))
        return path.read_bytes()

    data = await asyncio.to_thread(patch)
    await world.put("rec.mp4", data)


@scenario("files", short=True)
async def truncated_during_the_proof(world: World) -> None:
    """Cut and finished anew at about the time it is read."""
    await world.ingest()
    await world.write("rec.mp4", 30 * MIB, rate=40 * MIB, interim=True)
    path = world.watched / "rec.mp4"
    await asyncio.sleep(world.random.uniform(0.1, 0.9))
    await asyncio.to_thread(os.truncate, path, 7 * MIB)
    await asyncio.sleep(world.random.uniform(0.0, 0.5))
    data = await asyncio.to_thread(path.read_bytes)
    await world.put("rec.mp4", data + world.random.randbytes(3 * MIB))


@scenario("files")
async def touched_during_the_proof(world: World) -> None:
    await world.ingest()
    await world.write("rec.mp4", 24 * MIB, rate=60 * MIB, interim=True)
    for _ in range(6):
        await asyncio.sleep(world.random.uniform(0.05, 0.6))
        await asyncio.to_thread(os.utime, world.watched / "rec.mp4")


@scenario("files", short=True)
async def renamed_in_mid_upload(world: World) -> None:
    await world.ingest()
    async with asyncio.TaskGroup() as tasks:
        writing = tasks.create_task(world.write("a.mp4", 26 * MIB, rate=RATE))
        await world.s3.seen("UploadPart")
        os.rename(world.watched / "a.mp4", world.watched / "b.mp4")
        await writing
    world.wanted["b.mp4"] = world.wanted.pop("a.mp4")


@scenario("files", short=True)
async def name_taken_in_mid_upload(world: World) -> None:
    """It is renamed, and at once another recording has its name: neither gets into the other."""
    await world.ingest()
    async with asyncio.TaskGroup() as tasks:
        writing = tasks.create_task(world.write("a.mp4", 26 * MIB, rate=RATE))
        await world.s3.seen("UploadPart")
        os.rename(world.watched / "a.mp4", world.watched / "b.mp4")
        (world.watched / "a.mp4").write_bytes(world.random.randbytes(13 * MIB))
        await writing
    world.wanted["b.mp4"] = world.wanted.pop("a.mp4")
    await world.adopt("a.mp4", interim=False)


@scenario("files")
async def folder_renamed_in_mid_upload(world: World) -> None:
    await world.ingest()
    async with asyncio.TaskGroup() as tasks:
        writing = tasks.create_task(world.write("old/a.mp4", 26 * MIB, rate=RATE))
        await world.s3.seen("UploadPart")
        os.rename(world.watched / "old", world.watched / "new")
        await writing
    world.wanted["new/a.mp4"] = world.wanted.pop("old/a.mp4")


@scenario("files")
async def renamed_while_nobody_watched(world: World) -> None:
    first = await world.ingest()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(world.write("a.mp4", 26 * MIB, rate=RATE))
        await world.s3.seen("UploadPart", 2)
        await first.kill()
    os.rename(world.watched / "a.mp4", world.watched / "b.mp4")
    world.wanted["b.mp4"] = world.wanted.pop("a.mp4")
    await world.ingest()


@scenario("files", short=True)
async def deleted_in_mid_upload(world: World) -> None:
    """It cannot be stored any more; it fails, and leaves nothing behind."""
    await world.ingest()
    async with asyncio.TaskGroup() as tasks:
        writing = tasks.create_task(world.write("gone.mp4", 26 * MIB, rate=RATE))
        await world.s3.seen("UploadPart")
        os.unlink(world.watched / "gone.mp4")
        await writing
    del world.wanted["gone.mp4"]
    await world.put("other.mp4", world.random.randbytes(MIB))


@scenario("files", patience_s=240)
async def sparse_file(world: World) -> None:
    """Half a GiB apparent size, a few bytes of data. Straight to the server: its bytes are many."""
    world.settings["S3_ENDPOINT_URL"] = world.s3_server.endpoint_url
    await world.ingest()
    path = world.watched / "sparse.mp4"

    def make() -> None:
        with path.open("wb") as file:
            file.truncate(GIB // 2)
            file.seek(GIB // 3)
            file.write(b"data")

    await asyncio.to_thread(make)
    await world.adopt("sparse.mp4")


@scenario("files")
async def moved_away_after_upload(world: World) -> None:
    archive = world.folder / "archive"
    world.settings["AFTER_UPLOAD"] = f"move:{archive}"
    await world.ingest()
    await world.write_mixed(3, rate=RATE)
    await world.stored(3)
    async with asyncio.timeout(20):
        while await asyncio.to_thread(lambda: len(list(archive.rglob("*.mp4")))) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


@scenario("files", runs=3)
async def deleted_after_upload_with_kills(world: World) -> None:
    """Local files go only when their objects are proven, whatever happens in between."""
    world.settings["AFTER_UPLOAD"] = "delete"
    instance = await world.ingest()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(world.write_mixed(4, rate=RATE))
        for _ in range(3):
            await asyncio.sleep(world.random.uniform(0.4, 1.4))
            await instance.kill()
            instance = await world.ingest()
