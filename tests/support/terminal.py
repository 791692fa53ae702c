"""`cefmp4` as somebody types it: in a folder, with few settings, in a terminal of its own."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from tests.support.service import reached

from cefmp4.embedded.state import load_connection
from cefmp4.storage.s3.connect import S3Config

PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """What it said of trouble."""
        return self.err.splitlines()


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return kept | dict(settings)


async def cefmp4(folder: Path, *words: str, **settings: str) -> Answer:
    """Runs a command to its end."""
    return await python(folder, "-m", "cefmp4", *words, **settings)


async def python(folder: Path, *words: str, **settings: str) -> Answer:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *words),
        cwd=folder,
        env=environment({"COLUMNS": "150"} | settings),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return Answer(process.returncode or 0, out.decode(), err.decode())


class Running:
    """`cefmp4 up` in a terminal: what it says lies in a file."""

    def __init__(self, process: asyncio.subprocess.Process, screen: Path) -> None:
        self._process = process
        self._screen = screen

    @property
    def said(self) -> str:
        return self._screen.read_text(errors="replace")

    @property
    def processes(self) -> list[psutil.Process]:
        """It and all it started."""
        me = psutil.Process(self._process.pid)
        return [me, *me.children(recursive=True)]

    async def says(self, words: str) -> None:
        async def has_said() -> bool:
            assert self._process.returncode is None, f"it ended: {self.said}"
            return words in self.said

        assert await reached(has_said, PATIENCE_S), f"it never said {words!r}: {self.said}"

    async def ctrl_c(self, timeout_s: float) -> int:
        """As a terminal does it: every process of the group gets the signal."""
        os.killpg(self._process.pid, signal.SIGINT)
        async with asyncio.timeout(timeout_s):
            return await self._process.wait()


@asynccontextmanager
async def up(folder: Path, **settings: str) -> AsyncIterator[Running]:
    screen = folder.with_name(f"{folder.name}.screen")
    with await asyncio.to_thread(screen.open, "wb") as terminal:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "cefmp4", "up"),
            cwd=folder,
            env=environment(settings),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
        )
    try:
        yield Running(process, screen)
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


def store_of(folder: Path) -> S3Config:
    """The embedded one that runs for this folder."""
    place = load_connection(folder / ".cefmp4")
    assert place
    return S3Config(
        bucket=place.bucket,
        endpoint_url=place.s3_endpoint_url,
        access_key=place.s3_access_key_id,
        secret=place.s3_secret_access_key,
    )
