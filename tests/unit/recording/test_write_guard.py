"""With real files and real writers in other processes: what counts is what the kernel says."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cefmp4.errors import InvariantError
from cefmp4.recording.write_guard import WriteGuards, WriteGuardState

HOLD = "f = open(sys.argv[1], 'ab')"
HOLD_READ_WRITE = "fd = os.open(sys.argv[1], os.O_RDWR)"
HOLD_MAPPED = """
fd = os.open(sys.argv[1], os.O_RDWR)
m = mmap.mmap(fd, 0)
os.close(fd)
"""
READ = "f = open(sys.argv[1], 'rb')"


@pytest.fixture(params=["kept by another process", "held alone"])
async def write_guards(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[WriteGuards]:
    if request.param == "held alone":
        monkeypatch.setattr(sys, "executable", "/no/such/python")
    async with WriteGuards() as guards:
        monkeypatch.undo()
        assert (guards.keeper_pid is None) == (request.param == "held alone")
        yield guards


@asynccontextmanager
async def other_process(code: str, path: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Runs `code`, says so, and holds what it has until its standard input ends."""
    program = f"import mmap, os, sys\n{code}\nprint('ready', flush=True)\nsys.stdin.read()"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        program,
        str(path),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    try:
        yield process
    finally:
        process.stdin.close()
        await process.wait()


async def ready(process: asyncio.subprocess.Process) -> None:
    assert process.stdout is not None
    async with asyncio.timeout(20):
        assert await process.stdout.readline() == b"ready\n"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  # a signal handler sets no event of ours
            await asyncio.sleep(0.002)


@pytest.mark.parametrize("code", [HOLD, HOLD_READ_WRITE, HOLD_MAPPED])
async def test_a_writer_in_another_process_is_seen(
    code: str, recording: Path, fd: int, write_guards: WriteGuards
) -> None:
    assert write_guards.writer_state(fd) is WriteGuardState.FREE
    async with other_process(code, recording) as process:
        await ready(process)
        assert write_guards.writer_state(fd) is WriteGuardState.WRITER
        with write_guards.hold(fd) as guard:
            assert guard.state is WriteGuardState.WRITER
            assert not guard.is_broken
    assert write_guards.writer_state(fd) is WriteGuardState.FREE


async def test_readers_do_not_count(recording: Path, fd: int, write_guards: WriteGuards) -> None:
    async with other_process(READ, recording) as process:
        with write_guards.hold(fd) as guard:
            await ready(process)
            assert guard.state is WriteGuardState.FREE
    assert not guard.is_broken


async def test_a_writer_that_comes_breaks_it_and_is_let_in_at_once(
    recording: Path, fd: int, write_guards: WriteGuards
) -> None:
    told: list[float] = []
    code = "import time\nt = time.monotonic()\nf = open(sys.argv[1], 'ab')\n"
    code += "print(time.monotonic() - t, flush=True)"
    with write_guards.hold(fd, on_broken=lambda: told.append(time.monotonic())) as guard:
        async with other_process(code, recording) as process:
            assert process.stdout is not None
            async with asyncio.timeout(20):
                waited_s = float(await process.stdout.readline())
            assert guard.is_broken
            await until(lambda: len(told) == 1)  # the writer is let in by whoever tells us
            assert write_guards.writer_state(fd) is WriteGuardState.WRITER
    assert guard.is_broken
    assert waited_s < 0.5  # 0.1 s on an idle machine; without the release it is 45 s


async def test_a_truncation_breaks_it(recording: Path, fd: int, write_guards: WriteGuards) -> None:
    with write_guards.hold(fd) as guard:
        await asyncio.to_thread(os.truncate, recording, 10)
        await until(lambda: guard.is_broken)
    assert guard.is_broken


async def test_a_thread_sees_it_before_the_signal_is_handled(
    recording: Path, fd: int, write_guards: WriteGuards
) -> None:
    with write_guards.hold(fd) as guard:
        with pytest.raises(BlockingIOError):
            os.open(recording, os.O_WRONLY | os.O_NONBLOCK)
        assert guard.is_broken  # nothing was awaited: the handler has not run
    assert guard.is_broken


async def test_one_signal_breaks_every_file_it_stands_for(
    tmp_path: Path, recording: Path, write_guards: WriteGuards
) -> None:
    paths = [tmp_path / f"{number}.mp4" for number in range(20)]
    for path in paths:
        path.touch()
    fds = [os.open(path, os.O_RDONLY) for path in paths]
    guards = [write_guards.hold(number) for number in fds]
    for path in paths[::2]:
        with pytest.raises(BlockingIOError):
            os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    await until(lambda: not any(guard._is_held for guard in guards[::2]))
    assert [guard.is_broken for guard in guards] == [True, False] * 10
    for guard, number in zip(guards, fds, strict=True):
        guard.release()
        os.close(number)


async def test_two_instances_may_guard_one_file(
    recording: Path, fd: int, write_guards: WriteGuards
) -> None:
    code = "import fcntl\nf = open(sys.argv[1], 'rb')\n"
    code += "fcntl.fcntl(f, fcntl.F_SETLEASE, fcntl.F_RDLCK)"
    async with other_process(code, recording) as process:
        await ready(process)
        with write_guards.hold(fd) as guard:
            assert guard.state is WriteGuardState.FREE


async def test_one_descriptor_has_one_write_guard(fd: int, write_guards: WriteGuards) -> None:
    with write_guards.hold(fd):
        assert write_guards.writer_state(fd) is WriteGuardState.FREE
        with pytest.raises(InvariantError):
            write_guards.hold(fd)
    with write_guards.hold(fd) as guard:
        assert guard.state is WriteGuardState.FREE


async def test_a_descriptor_that_was_closed_counts_as_broken(
    recording: Path, write_guards: WriteGuards
) -> None:
    number = os.open(recording, os.O_RDONLY)
    with write_guards.hold(number) as guard:
        os.close(number)
        assert guard.is_broken
    assert guard.is_broken


async def test_what_the_kernel_refuses_is_blind(recording: Path, write_guards: WriteGuards) -> None:
    read_end, write_end = os.pipe()
    try:
        assert write_guards.writer_state(read_end) is WriteGuardState.BLIND
    finally:
        os.close(read_end)
        os.close(write_end)
    if os.geteuid() != 0:
        return
    number = os.open(recording, os.O_RDONLY)
    try:
        assert await asyncio.to_thread(_state_as_nobody, number) == "EACCES"
    finally:
        os.close(number)


def _state_as_nobody(number: int) -> str:
    """In a child, because giving up one's rights cannot be taken back."""
    pid = os.posix_spawn(
        sys.executable,
        [
            sys.executable,
            "-c",
            "import errno, fcntl, os, sys\n"
            "os.setuid(65534)\n"
            "try:\n"
            f"    fcntl.fcntl({number}, fcntl.F_SETLEASE, fcntl.F_RDLCK)\n"
            "except PermissionError as error:\n"
            "    sys.exit(13 if error.errno == errno.EACCES else 1)\n",
        ],
        os.environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, number, number)],
    )
    _, status = os.waitpid(pid, 0)
    return "EACCES" if os.waitstatus_to_exitcode(status) == 13 else "other"


@pytest.mark.parametrize(
    ("fs_type", "free", "held"),
    [
        ("nfs4", WriteGuardState.BLIND, WriteGuardState.BLIND),
        ("cifs", WriteGuardState.BLIND, WriteGuardState.BLIND),
        ("fuse.bindfs", WriteGuardState.BLIND, WriteGuardState.WRITER),
        ("overlay", WriteGuardState.BLIND, WriteGuardState.WRITER),
        ("ext4", WriteGuardState.FREE, WriteGuardState.WRITER),
    ],
)
async def test_file_systems_that_do_not_know_are_blind(
    fs_type: str,
    free: WriteGuardState,
    held: WriteGuardState,
    recording: Path,
    fd: int,
    write_guards: WriteGuards,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cefmp4.recording.write_guard.fs_type_of_fd", lambda _: fs_type)
    assert write_guards.writer_state(fd) is free
    writer = os.open(recording, os.O_WRONLY)
    try:
        assert write_guards.writer_state(fd) is held
    finally:
        os.close(writer)


async def test_without_a_signal_handler_nothing_is_held(fd: int) -> None:
    guards = WriteGuards()
    assert guards.writer_state(fd) is WriteGuardState.BLIND
    async with guards:
        held = guards.hold(fd)
        assert held.state is WriteGuardState.FREE
    assert guards.writer_state(fd) is WriteGuardState.BLIND
