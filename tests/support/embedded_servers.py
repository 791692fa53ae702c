"""Embedded servers, and a process that owns them and may be killed."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from cefmp4.embedded.supervisor import EmbeddedServers


@asynccontextmanager
async def watched(servers: EmbeddedServers) -> AsyncIterator[None]:
    task = asyncio.create_task(servers.watch(), name="watch")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def owner_process(program: str, state_dir: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Runs `program`, which says when it is ready."""
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(state_dir), stdout=asyncio.subprocess.PIPE
    )
    assert owner.stdout
    try:
        assert await owner.stdout.readline() == b"ready\n"
        yield owner
    finally:
        if owner.returncode is None:
            owner.kill()
        await owner.communicate()
