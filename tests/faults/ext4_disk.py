"""An ext4 of its own on a loop device: its inode numbers are used again at once, as on the memory
card of a recorder, and nothing else on this machine takes them."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from tests.faults.registry import CannotRunError

MANY_TRIES = 200


@asynccontextmanager
async def ext4_disk(folder: Path, size: int) -> AsyncIterator[None]:
    """Mounted on `folder`, of `size` bytes, journal included. CannotRunError where this machine
    does not allow it. Nothing may hold it open at the end."""
    if os.geteuid() != 0:
        raise CannotRunError("only root may mount a file system")
    image = folder.with_name(f"{folder.name}.ext4")
    await asyncio.to_thread(_make_image, folder, image, size)
    try:
        await _run("mkfs.ext4", "-q", "-F", "-m", "0", str(image))
        await _run("mount", "-o", "loop", str(image), str(folder))
        try:
            await asyncio.to_thread((folder / "lost+found").rmdir)
            yield
        finally:
            await _run("umount", "-l", str(folder))
    finally:
        await asyncio.to_thread(image.unlink)


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


def _make_image(folder: Path, image: Path, size: int) -> None:
    folder.mkdir(exist_ok=True)
    with image.open("wb") as file:
        file.truncate(size)


async def _run(*command: str) -> None:
    try:
        done = await asyncio.to_thread(
            subprocess.run, command, check=False, capture_output=True, timeout=60
        )
    except FileNotFoundError:
        raise CannotRunError(f"there is no {command[0]} here") from None
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        raise CannotRunError(f"{command[0]} cannot be had here: {said}")
