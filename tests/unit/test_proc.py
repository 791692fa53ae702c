"""Children end when they must, whatever they do, and leave nothing behind."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from cefmp4 import proc
from cefmp4.errors import ProgramMissingError
from cefmp4.model.part import MIB


async def run(*argv: str, **changed: object) -> proc.Exit:
    limits: dict[str, object] = {"timeout_s": 20, "max_output_bytes": 1000, **changed}
    return await proc.run(argv, **limits)  # type: ignore[arg-type]  # the limits of one test


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # another process's doing has no event
            await asyncio.sleep(0.01)


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def test_output_and_exit_code() -> None:
    done = await run("sh", "-c", "echo out; echo err >&2; exit 3")
    assert (done.returncode, done.stdout, done.stderr_tail) == (3, b"out\n", "err\n")
    assert not done.is_ok


async def test_arguments_arrive_as_they_are() -> None:
    hostile = ["-n", "a b", "$(touch x)", "*", "new\nline", "\udcff", "'\""]
    done = await run(sys.executable, "-c", "import sys; print(ascii(sys.argv[1:]))", *hostile)
    assert done.stdout.decode().strip() == ascii(hostile)


async def test_a_missing_program_is_named() -> None:
    with pytest.raises(ProgramMissingError, match="no-such-program"):
        await run("no-such-program")


async def test_the_whole_group_dies_at_the_time_limit(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    started = time.monotonic()
    done = await run("sh", "-c", f"sleep 60 & echo $! > '{pid_file}'; wait", timeout_s=0.5)
    assert done.timed_out
    assert done.returncode == -signal.SIGKILL
    assert time.monotonic() - started < 5
    grandchild = int(pid_file.read_text())
    await until(lambda: is_gone(grandchild))


async def test_a_grandchild_that_keeps_the_pipe_does_not_keep_us(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    done = await run("sh", "-c", f"sleep 60 & echo $! > '{pid_file}'", timeout_s=0.5)
    assert done.timed_out
    grandchild = int(pid_file.read_text())
    await until(lambda: is_gone(grandchild))


async def test_cancelling_kills_and_reaps(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    task = asyncio.create_task(run("sh", "-c", f"echo $$ > '{pid_file}'; sleep 60; true"))
    await until(lambda: pid_file.exists() and bool(pid_file.read_text()))
    child = int(pid_file.read_text())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not psutil.pid_exists(child)


async def test_endless_output_is_cut() -> None:
    done = await run("yes", max_output_bytes=5000)
    assert done.killed_for_output
    assert len(done.stdout) == 5000
    assert not done.timed_out


async def test_endless_complaints_keep_only_their_end() -> None:
    done = await run("sh", "-c", "yes | head -c 1000000 >&2; echo last >&2")
    assert done.is_ok
    assert done.stderr_tail.endswith("last\n")
    assert len(done.stderr_tail) < 10_000


async def test_limits_are_in_force() -> None:
    script = "ulimit -v; ulimit -c; ulimit -t; nice"
    done = await run("sh", "-c", f"sleep 0.2; {script}", memory_bytes=512 * MIB, timeout_s=7)
    memory, core, cpu, niceness = done.stdout.split()
    assert memory == b"524288"
    assert core == b"0"
    assert int(cpu) >= 7
    assert int(niceness) >= 10


async def test_too_much_memory_fails_in_the_child_only() -> None:
    done = await run(sys.executable, "-c", "bytearray(900 * 1024 * 1024)", memory_bytes=512 * MIB)
    assert done.returncode != 0
    assert "MemoryError" in done.stderr_tail


async def test_secrets_stay_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3_SECRET_ACCESS_KEY", "hidden-from-children")
    done = await run("env")
    assert b"hidden" not in done.stdout
    assert b"PATH=" in done.stdout


async def test_only_the_given_descriptor_is_inherited(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"A" * 10)
    fd = os.open(tmp_path / "a", os.O_RDONLY)
    try:
        os.set_inheritable(fd, False)
        done = await run("sh", "-c", f"cat /proc/self/fd/{fd}; ls /proc/$$/fd", pass_fds=(fd,))
    finally:
        os.close(fd)
    assert done.stdout.startswith(b"A" * 10)
    assert {int(n) for n in done.stdout[10:].split()} == {0, 1, 2, fd}


_PARENT = """
import asyncio, sys
from cefmp4 import proc
script = f"echo $$ > '{sys.argv[1]}'; sleep 60; true"
asyncio.run(proc.run(["sh", "-c", script], timeout_s=60, max_output_bytes=10))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's")
async def test_children_of_a_killed_parent_die(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", _PARENT, str(pid_file))
    try:
        await until(lambda: pid_file.exists() and bool(pid_file.read_text()))
    finally:
        parent.kill()
        await parent.wait()
    await until(lambda: is_gone(int(pid_file.read_text())))
