"""A disk of its own that can be pulled and put in again: an ext4 file system in a file, on a loop
device, where the test wants it. Inode numbers are used again as on any real disk."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.faults.registry import CannotRunError

SIZE = "512M"  # sparse: what is not written takes no room


@dataclass(slots=True)
class Disk:
    """`point` is where it is mounted: an empty folder while it is pulled."""

    image: Path
    point: Path
    is_plugged_in: bool = False

    async def plug_in(self) -> None:
        await _must("mount", "-o", "loop", str(self.image), str(self.point))
        self.is_plugged_in = True

    async def pull(self) -> None:
        """Lazily, as when a server goes: open files stay open, and no name leads to them."""
        await _must("umount", "-l", str(self.point))
        self.is_plugged_in = False

    async def bind(self, point: Path, *, read_only: bool = False) -> None:
        """The same file system at another place, as a container sees it."""
        await asyncio.to_thread(point.mkdir, exist_ok=True)
        await _must("mount", "--bind", str(self.point), str(point))
        if read_only:
            await _must("mount", "-o", "remount,bind,ro", str(point))


@asynccontextmanager
async def disk(image: Path, point: Path) -> AsyncIterator[Disk]:
    """Plugged in at first; pulled at the end, with what was bound to it still to be unmounted by
    whoever bound it."""
    await asyncio.to_thread(point.mkdir, exist_ok=True, parents=True)
    await _must("truncate", "-s", SIZE, str(image))
    await _must("mkfs.ext4", "-q", "-F", "-I", "256", str(image))
    one = Disk(image, point)
    await one.plug_in()
    try:
        yield one
    finally:
        if one.is_plugged_in:
            await one.pull()


async def unmount(point: Path) -> None:
    await _must("umount", "-l", str(point))


async def _must(*command: str) -> None:
    done = await _run(*command)
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        raise CannotRunError(f"{command[0]} cannot be used here: {said}")


async def _run(*command: str) -> "subprocess.CompletedProcess[bytes]":
    try:
        return await asyncio.to_thread(
            subprocess.run, command, check=False, capture_output=True, timeout=30
        )
    except FileNotFoundError:
        return subprocess.CompletedProcess(command, 127, b"", b"it is not installed")
