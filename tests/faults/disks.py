"""A disk of its own that can be pulled and put in again: an ext4 file system in a file, on a loop
device, where the test wants it. Its inode numbers are used again at once, as on the memory card of
a recorder, and nothing else on this machine takes them."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.faults.registry import CannotRunError

BYTES = 512 * 1024 * 1024  # sparse: what is not written takes no room
MANY_TRIES = 200


@dataclass(slots=True)
class Disk:
    """`point` is where it is mounted: an empty folder while it is pulled."""

    image: Path
    point: Path
    is_plugged_in: bool = False

    async def plug_in(self) -> None:
        await must("mount", "-o", "loop", str(self.image), str(self.point))
        self.is_plugged_in = True

    async def pull(self) -> None:
        """Lazily, as when a server goes: open files stay open, and no name leads to them."""
        await must("umount", "-l", str(self.point))
        self.is_plugged_in = False

    async def bind(self, point: Path, *, read_only: bool = False) -> None:
        """The same file system at another place, as a container sees it."""
        await asyncio.to_thread(point.mkdir, exist_ok=True)
        await must("mount", "--bind", str(self.point), str(point))
        if read_only:
            await must("mount", "-o", "remount,bind,ro", str(point))


@asynccontextmanager
async def disk(point: Path, size: int = BYTES, *, image: Path | None = None) -> AsyncIterator[Disk]:
    """Of `size` bytes, journal included. Plugged in at first; pulled at the end, with what was
    bound to it still to be unmounted by whoever bound it. CannotRunError where this machine does
    not allow it."""
    if os.geteuid() != 0:
        raise CannotRunError("only root may mount a file system")
    await asyncio.to_thread(point.mkdir, exist_ok=True, parents=True)
    image = image or point.with_name(f"{point.name}.ext4")
    await must("truncate", "-s", str(size), str(image))
    await must("mkfs.ext4", "-q", "-F", "-m", "0", "-I", "256", str(image))
    one = Disk(image, point)
    await one.plug_in()
    try:
        await asyncio.to_thread((point / "lost+found").rmdir)
        yield one
    finally:
        if one.is_plugged_in:
            await one.pull()


def take_inode(inode: int, make: Callable[[], Path]) -> Path:
    """Calls `make`, which makes a new file, until that file has the inode, which must be free.
    Those in between go. Blocking."""
    others: list[Path] = []
    try:
        for _ in range(MANY_TRIES):
            path = make()
            if path.stat().st_ino == inode:
                return path
            others.append(path.rename(path.with_name(f".other-{len(others)}")))
    finally:
        for other in others:
            other.unlink()
    raise AssertionError(f"inode {inode} was not used again")


async def unmount(point: Path) -> None:
    await must("umount", "-l", str(point))


async def must(*command: str) -> None:
    """CannotRunError where this machine does not do that."""
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
