"""A file system of a few MiB, to be filled to its last byte."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from tests.faults.disks import must, unmount


@asynccontextmanager
async def tiny_disk(folder: Path, size: int) -> AsyncIterator[None]:
    """Mounted on `folder`. Nothing may hold it open at the end."""
    await asyncio.to_thread(folder.mkdir, exist_ok=True)
    await must("mount", "-t", "tmpfs", "-o", f"size={size},mode=0755", "none", str(folder))
    try:
        yield
    finally:
        await unmount(folder)


def fill(folder: Path) -> Path:
    """To the last byte; returns the file whose removal makes room again. Blocking."""
    ballast = folder / "ballast"
    with ballast.open("ab", buffering=0) as file:
        for size in (1024 * 1024, 4096, 1):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))
    return ballast
