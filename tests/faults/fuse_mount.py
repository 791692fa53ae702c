"""The watched folder seen through a FUSE mount, while recorders write below it: events, leases and
open descriptors tell less there than on a disk of one's own."""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.faults.registry import CannotRunError
from tests.faults.world import World


async def watch_through_fuse(world: World) -> None:
    """Before any service starts. Writers go on writing into `world.watched`."""
    world.mount = world.folder / "mount"
    await world.enter(_mounted(world.watched, world.mount))


@asynccontextmanager
async def _mounted(below: Path, mount: Path) -> AsyncIterator[None]:
    program = shutil.which("bindfs")
    if program is None:
        raise CannotRunError("bindfs is not installed (make setup)")
    await asyncio.to_thread(mount.mkdir)
    done = await _run(program, str(below), str(mount))
    if done.returncode != 0:
        raise CannotRunError(f"no FUSE here: {done.stderr.decode(errors='replace').strip()}")
    try:
        yield
    finally:
        await _run("umount", "-l", str(mount))


async def _run(*command: str) -> "subprocess.CompletedProcess[bytes]":
    return await asyncio.to_thread(
        subprocess.run, command, check=False, capture_output=True, timeout=10
    )
