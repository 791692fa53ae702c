"""Names and links made to mislead: what is no plain file inside the folder is never stored."""

import asyncio
import os
import socket
from pathlib import Path

from tests.faults.registry import scenario
from tests.faults.world import MIB, World

RATE = 12 * MIB
SWAPS = 60

HOSTILE_NAMES = (
    b"new\nline.mp4",
    b"tab\tand \x1b[31mred.mp4",
    b"not utf-8 \xff\xfe.mp4",
    b"-rf.mp4",
    b"--help.mp4",
    "\u202etfel ot thgir \U0001f3a5.mp4".encode(),
    b"per%cent &amp; <xml> \"quotes' ;$(true).mp4",
    b"back\\slash?query#hash+plus.mp4",
    b" leading and trailing .mp4",
    b"x" * 251 + b".mp4",
    b"a..b.mp4",
    b"dots .. ...mp4",
    b"*?[a-z]{x,y}.mp4",
    b"C:\\con.mp4",
    b"%00%2e%2e%2f.mp4",
    "e\u0301 decomposed.mp4".encode(),
    "\u00e9 composed.mp4".encode(),
)


@scenario("files", short=True)
async def hostile_names(world: World) -> None:
    await world.ingest()
    for raw in HOSTILE_NAMES:
        await world.put(os.fsdecode(raw), world.random.randbytes(3000))
    for raw in (b"..mp4", b"...mp4", b".hidden.mp4"):  # names that programs give to passing files
        await asyncio.to_thread((world.watched / os.fsdecode(raw)).write_bytes, b"not for you")
    deep = "/".join(["d" * 60] * 15)
    await world.put(f"{deep}/deep.mp4", world.random.randbytes(3000))
    await world.write(os.fsdecode(b"big\n\xff.mp4"), 8 * MIB, rate=RATE)


@scenario("files", short=True)
async def links_and_special_files(world: World) -> None:
    """Hard links are files; symbolic links, FIFOs and sockets are not."""
    outside = world.folder / "outside.mp4"
    await world.hide(outside, b"secret" * 1000)
    watched = world.watched
    os.symlink(outside, watched / "link.mp4")
    os.symlink(world.folder, watched / "folder")
    os.symlink(watched, watched / "loop")
    os.mkfifo(watched / "fifo.mp4")
    with socket.socket(socket.AF_UNIX) as unix:
        await asyncio.to_thread(_bind, unix, watched / "socket.mp4")
        await world.put("one.mp4", world.random.randbytes(5000))
        os.link(watched / "one.mp4", watched / "two.mp4")
        await world.ingest()
        os.mkfifo(watched / "late.mp4")
        os.symlink(outside, watched / "late-link.mp4")
        (watched / "dir.mp4").mkdir()
        world.wanted["two.mp4"] = world.wanted["one.mp4"]
        await world.put("last.mp4", world.random.randbytes(5000))


def _bind(unix: socket.socket, path: Path) -> None:
    before = os.open(".", os.O_RDONLY)
    os.chdir(path.parent)  # the full path may be longer than a socket's name can be
    try:
        unix.bind(path.name)
    finally:
        os.fchdir(before)
        os.close(before)


@scenario("files", short=True)
async def swapped_for_links(world: World) -> None:
    """A file, and a folder on the way to one, become links to something outside and back, many
    times, while both are looked at and read."""
    outside, watched = world.folder / "outside", world.watched
    for name in ("file.mp4", "folder/rec.mp4"):
        await world.hide(outside / name, world.random.randbytes(6 * MIB))
        await world.put(name, world.random.randbytes(6 * MIB), interim=True)
    await world.ingest()
    file, folder = watched / "file.mp4", watched / "folder"
    for _ in range(SWAPS):
        os.rename(file, watched / "file.tmp")
        os.rename(folder, watched / ".folder")
        os.symlink(outside / "file.mp4", file)
        os.symlink(outside / "folder", folder)
        await asyncio.sleep(world.random.uniform(0.0, 0.08))
        os.unlink(file)
        os.unlink(folder)
        os.rename(watched / "file.tmp", file)
        os.rename(watched / ".folder", folder)
        await asyncio.sleep(world.random.uniform(0.0, 0.08))


@scenario("files")
async def hard_links_of_a_growing_file(world: World) -> None:
    """One file under two names, one of them given while it is recorded, one of them taken away."""
    await world.ingest()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(world.write("a.mp4", 22 * MIB, rate=RATE))
        await world.s3.seen("UploadPart")
        os.link(world.watched / "a.mp4", world.watched / "b.mp4")
        os.link(world.watched / "a.mp4", world.watched / "c.mp4")
        await asyncio.sleep(0.3)
        os.unlink(world.watched / "c.mp4")
    world.wanted["b.mp4"] = world.wanted["a.mp4"]
