"""One ingest service as a process of its own, the way an operator runs it."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import aiohttp

READY_S = 30.0
STOP_S = 30.0
POLL_S = 0.03
SPARE_DESCRIPTORS = 60  # connections that its pools may keep


class Instance:
    def __init__(
        self,
        name: str,
        settings: Mapping[str, str],
        folder: Path,
        *,
        command: Sequence[str] = ("cefmp4", "ingest"),
        log: Path | None = None,
    ) -> None:
        self.name = name
        self.port = int(settings["PROM_PORT"])
        self.log = log or folder / f"{name}.log"
        self.kills = 0
        self.settings = dict(settings)
        self._folder = folder
        self._command = command
        self._process: asyncio.subprocess.Process | None = None
        self._descriptors_at_start = 0

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def launch(self) -> None:
        """Without waiting until it is ready."""
        environment = {
            name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")
        }
        log = await asyncio.to_thread(self.log.open, "ab")
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-W", "default::ResourceWarning", "-m", *self._command),
                env=environment | self.settings,
                cwd=self._folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        finally:
            log.close()

    async def start(self) -> None:
        await self.launch()
        await self.ready()

    async def ready(self, timeout_s: float = READY_S) -> None:
        async with asyncio.timeout(timeout_s):
            while not await self.is_ready():
                if not self.is_running:
                    raise AssertionError(f"{self.name} ended while it started, see its log")
                await asyncio.sleep(POLL_S)
        self._descriptors_at_start = len(self.descriptors())

    async def is_ready(self) -> bool:
        return (await self._get("/readyz"))[0] == 200

    async def metrics(self) -> dict[str, float]:
        """The series without labels; empty while it does not answer."""
        status, text = await self._get("/metrics")
        if status != 200:
            return {}
        pairs = re.findall(r"^([a-z0-9_]+) (\S+)$", text, re.MULTILINE)
        return {name: float(value) for name, value in pairs}

    async def says(self, words: str, timeout_s: float = 20) -> None:
        """Waits until it does."""
        async with asyncio.timeout(timeout_s):
            while words not in await self.said():  # noqa: ASYNC110  # another process
                await asyncio.sleep(POLL_S)

    async def said(self) -> str:
        if not self.log.is_file():
            return ""
        return await asyncio.to_thread(self.log.read_text, errors="replace")

    async def _get(self, path: str) -> tuple[int, str]:
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as http,
                http.get(f"http://127.0.0.1:{self.port}{path}") as reply,
            ):
                return reply.status, await reply.text()
        except (aiohttp.ClientError, TimeoutError, OSError):
            return 0, ""

    def pause(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    async def kill(self) -> None:
        self.kills += self.is_running
        await self.end()

    async def end(self) -> None:
        """As `kill`, but not to see what becomes of it."""
        if self.is_running:
            with suppress(ProcessLookupError):  # another blow met it a moment ago
                os.kill(self.pid, signal.SIGKILL)
            await self.exit_code()

    async def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        assert self._process is not None
        if self.is_running:
            self.resume()
            os.kill(self.pid, signal.SIGTERM)
        try:
            return await self.exit_code(STOP_S)
        except TimeoutError:
            await self.end()
            return -signal.SIGKILL

    async def exit_code(self, timeout_s: float = STOP_S) -> int:
        assert self._process is not None
        async with asyncio.timeout(timeout_s):
            return await self._process.wait()

    def descriptors(self) -> list[str]:
        found = []
        folder = f"/proc/{self.pid}/fd"
        for name in os.listdir(folder):
            try:
                found.append(os.readlink(f"{folder}/{name}"))
            except OSError:
                continue  # closed meanwhile
        return found

    def leaks(self, watched: Path) -> list[str]:
        """Descriptors it should have closed by now."""
        held = self.descriptors()
        files = [f"open file {path}" for path in held if path.startswith(f"{watched}/")]
        more = len(held) - self._descriptors_at_start
        if more > SPARE_DESCRIPTORS:
            files.append(f"{more} descriptors more than at the start")
        return files
