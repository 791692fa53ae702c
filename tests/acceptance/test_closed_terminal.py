"""The terminal in which `cefmp4 up` was typed is closed."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest
from tests.support.ports import free_port
from tests.support.service import reached
from tests.support.terminal import environment

PATIENCE_S = 60.0


class Terminal:
    def __init__(self) -> None:
        self.ours, self.theirs = os.openpty()
        self._said = b""
        os.set_blocking(self.ours, False)
        asyncio.get_running_loop().add_reader(self.ours, self._read)

    def log_in(self) -> None:
        """The child's side, with what a login has: who tests may have been told to hear no end."""
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        os.login_tty(self.theirs)

    def _read(self) -> None:
        try:
            self._said += os.read(self.ours, 65536)
        except OSError:  # nobody has the other side open any more
            asyncio.get_running_loop().remove_reader(self.ours)

    async def says(self, words: bytes) -> None:
        async def has_said() -> bool:
            return words in self._said

        assert await reached(has_said, PATIENCE_S), self._said

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.ours)
        os.close(self.ours)


# Another test of this process may have loaded what Swift runs on, which minds a fork.
@pytest.mark.filterwarnings("ignore:Using fork:DeprecationWarning")
@pytest.mark.parametrize("before", [(), ("nohup",)], ids=["typed", "nohup"])
async def test_closing_it_ends_all_in_order_or_nothing(
    tmp_path: Path, before: tuple[str, ...]
) -> None:
    settings = {
        "STATE_DIR": str(tmp_path / "state"),
        "WATCH_DIR": str(tmp_path / "watched"),
        "PROM_PORT": str(free_port()),
    }
    terminal = Terminal()
    process = await asyncio.create_subprocess_exec(
        *(*before, sys.executable, "-m", "cefmp4", "up"),
        cwd=tmp_path,
        env=environment(settings),
        preexec_fn=terminal.log_in,
    )
    try:
        os.close(terminal.theirs)
        if before:
            output = tmp_path / "nohup.out"
            await _says(output, "ready ")
        else:
            await terminal.says(b"ready ")
        servers = psutil.Process(process.pid).children(recursive=True)
        assert len(servers) >= 2
        terminal.close()
        if before:
            (tmp_path / "watched" / "a.mp4").write_bytes(b"film")
            await _says(output, "stored and proven")
            process.terminate()
        async with asyncio.timeout(PATIENCE_S):
            assert await process.wait() == 0
        _, left = psutil.wait_procs(servers, timeout=PATIENCE_S)
        assert not left
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _says(output: Path, words: str) -> None:
    async def has_said() -> bool:
        return words in _text_of(output)

    assert await reached(has_said, PATIENCE_S), _text_of(output)


def _text_of(output: Path) -> str:
    return output.read_text() if output.exists() else ""
