"""The process that holds leases: what it is for, and what happens without it."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from cefmp4.recording import lease_keeper
from cefmp4.recording.write_guard import WriteGuards, WriteGuardState

AT_ONCE_S = 1.0  # some milliseconds on a quiet machine; 45 s where nobody gives the lease up

SERVICE = """
import asyncio, os, sys
from cefmp4.recording.write_guard import WriteGuards

async def main():
    async with WriteGuards() as guards:
        fd = os.open(sys.argv[1], os.O_RDONLY)
        broken = asyncio.Event()
        guard = guards.hold(fd, on_broken=broken.set)
        print(guard.state.name, guards.keeper_pid, flush=True)
        await broken.wait()
        print("broken" if guard.is_broken else "not broken", file=sys.stderr, flush=True)

asyncio.run(main())
"""


@pytest.fixture
async def write_guards() -> AsyncIterator[WriteGuards]:
    async with WriteGuards() as guards:
        assert guards.keeper_pid is not None
        yield guards


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  # another process sets no event
            await asyncio.sleep(0.002)


def open_to_write(path: Path, flags: int = 0) -> float:
    """Seconds that it took. Blocking."""
    started = time.monotonic()
    os.close(os.open(path, os.O_WRONLY | flags))
    return time.monotonic() - started


@asynccontextmanager
async def service(path: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """One that holds the lease of this file, and the process that does so for it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SERVICE, str(path)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(20):
            state, keeper_pid = (await process.stdout.readline()).split()
        assert state == b"FREE"
        yield process, int(keeper_pid)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_a_frozen_service_keeps_no_writer_waiting(recording: Path) -> None:
    async with service(recording) as (frozen, _):
        os.kill(frozen.pid, signal.SIGSTOP)
        assert await asyncio.to_thread(open_to_write, recording) < AT_ONCE_S
        os.kill(frozen.pid, signal.SIGCONT)
        assert frozen.stderr is not None
        async with asyncio.timeout(20):
            assert await frozen.stderr.readline() == b"broken\n"


async def test_a_frozen_service_refuses_who_does_not_wait_for_a_moment_only(
    recording: Path,
) -> None:
    async with service(recording) as (frozen, _):
        os.kill(frozen.pid, signal.SIGSTOP)
        with pytest.raises(BlockingIOError):  # which is what breaks it
            open_to_write(recording, os.O_NONBLOCK)
        started = time.monotonic()

        def is_let_in() -> bool:
            try:
                open_to_write(recording, os.O_NONBLOCK)
            except BlockingIOError:
                return False
            return True

        await until(is_let_in)
        assert time.monotonic() - started < AT_ONCE_S
        os.kill(frozen.pid, signal.SIGCONT)


async def test_it_ends_with_the_service(recording: Path) -> None:
    async with service(recording) as (killed, keeper_pid):
        killed.kill()
        await killed.wait()
        await until(lambda: not psutil.pid_exists(keeper_pid))
    assert await asyncio.to_thread(open_to_write, recording) < AT_ONCE_S


async def test_it_is_gone_after_a_clean_stop(fd: int) -> None:
    async with WriteGuards() as guards:
        pid = guards.keeper_pid
        assert pid is not None
        assert guards.hold(fd).state is WriteGuardState.FREE
    assert not psutil.pid_exists(pid)  # no zombie either


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_signals_for_the_service_do_not_end_it(
    number: signal.Signals, recording: Path, fd: int, write_guards: WriteGuards
) -> None:
    assert write_guards.keeper_pid is not None
    os.kill(write_guards.keeper_pid, number)
    with write_guards.hold(fd) as guard:
        assert guard.token is not None
        assert await asyncio.to_thread(open_to_write, recording) < AT_ONCE_S
        await until(lambda: guard.is_broken)


async def test_when_it_is_killed_nothing_counts_as_guarded(
    recording: Path, fd: int, write_guards: WriteGuards
) -> None:
    told = asyncio.Event()
    with write_guards.hold(fd, on_broken=told.set) as guard:
        assert write_guards.keeper_pid is not None
        os.kill(write_guards.keeper_pid, signal.SIGKILL)
        async with asyncio.timeout(20):
            await told.wait()
        assert guard.is_broken
        assert await asyncio.to_thread(open_to_write, recording) < AT_ONCE_S


async def test_a_writer_waits_no_longer_when_it_is_killed(
    recording: Path, fd: int, write_guards: WriteGuards
) -> None:
    with write_guards.hold(fd) as guard:
        assert write_guards.keeper_pid is not None
        os.kill(
            write_guards.keeper_pid, signal.SIGSTOP
        )  # so that it cannot be faster than the kill
        writer = asyncio.create_task(asyncio.to_thread(open_to_write, recording))
        await until(lambda: guard.is_broken)
        os.kill(write_guards.keeper_pid, signal.SIGKILL)
        assert await writer < AT_ONCE_S


async def test_another_one_follows_and_until_then_we_hold_leases_alone(
    recording: Path, fd: int, write_guards: WriteGuards, monkeypatch: pytest.MonkeyPatch
) -> None:
    former = write_guards.keeper_pid
    assert former is not None
    monkeypatch.setattr(lease_keeper, "RESTART_PAUSE_S", 0.3)
    with write_guards.hold(fd) as first:
        os.kill(former, signal.SIGKILL)
        await until(lambda: first.is_broken)
    await until(lambda: write_guards.keeper_pid is None)
    with write_guards.hold(fd) as alone:
        assert (alone.state, alone.token) == (WriteGuardState.FREE, None)
        assert await asyncio.to_thread(open_to_write, recording) < AT_ONCE_S
        await until(lambda: alone.is_broken)

    def is_kept_again() -> bool:
        with write_guards.hold(fd) as guard:
            assert guard.state is WriteGuardState.FREE
            return guard.token is not None

    await until(is_kept_again)
    assert write_guards.keeper_pid not in (None, former)
    with write_guards.hold(fd) as kept:
        assert await asyncio.to_thread(open_to_write, recording) < AT_ONCE_S
        await until(lambda: kept.is_broken)


async def test_one_that_hangs_is_replaced(
    recording: Path, fd: int, write_guards: WriteGuards, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_keeper, "ANSWER_S", 0.1)
    hanging = write_guards.keeper_pid
    assert hanging is not None
    os.kill(hanging, signal.SIGSTOP)
    with write_guards.hold(fd) as guard:
        assert (guard.state, guard.token) == (WriteGuardState.FREE, None)
        assert not psutil.pid_exists(hanging)
        assert await asyncio.to_thread(open_to_write, recording) < AT_ONCE_S
        await until(lambda: guard.is_broken)


async def test_many_files_at_once(
    tmp_path: Path, recording: Path, write_guards: WriteGuards
) -> None:
    paths = [tmp_path / f"{number}.mp4" for number in range(500)]
    fds = []
    for path in paths:
        path.touch()
        fds.append(os.open(path, os.O_RDONLY))
    guards = [write_guards.hold(number) for number in fds]
    assert all(guard.token is not None for guard in guards)
    waited = [await asyncio.to_thread(open_to_write, path) for path in paths[::2]]
    assert max(waited) < AT_ONCE_S
    assert [guard.is_broken for guard in guards] == [True, False] * 250
    for guard, number in zip(guards, fds, strict=True):
        guard.release()
        os.close(number)
    assert write_guards.keeper_pid is not None
    kept = psutil.Process(write_guards.keeper_pid)
    await until(lambda: not [one for one in kept.open_files() if str(tmp_path) in one.path])


async def test_it_is_small(write_guards: WriteGuards) -> None:
    kept = psutil.Process(write_guards.keeper_pid)
    assert kept.memory_info().rss < 20_000_000  # 10 MB here, of which 4 are its own
    assert kept.environ().keys() <= {"LC_ALL", "PATH", "TMPDIR", "LD_LIBRARY_PATH"} | {
        name for name in os.environ if "VISIBLE_DEVICES" in name or name.startswith("NVIDIA")
    }
