"""The only place that starts child processes. A child gets limits, an environment without secrets
and a process group of its own, which never outlives the call that started it."""

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import structlog

from cefmp4.descriptors import RAN_OUT
from cefmp4.errors import ProgramMissingError, TransientError

log = structlog.get_logger()

_READ_BYTES = 64 * 1024
_STDERR_TAIL_BYTES = 8 * 1024
_REAP_TIMEOUT_S = 5.0
_NICENESS = 10
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_MAX_OPEN_FILES = 256

# Everything else stays away from children: our own environment carries the S3 and Redis secrets.
_PASSED_ENV = (
    "PATH",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
    "NVIDIA_DRIVER_CAPABILITIES",
)

# The limits are set by a shell that then becomes the program. `preexec_fn` would run Python between
# fork and exec, which can deadlock in a process with threads and rules out vfork; a Python launcher
# costs 8 ms and more. Shell plus setpriv cost 1.3 ms, ffprobe itself 60 ms. The shell asks for its
# parent once the death signal is armed: if we died before that, nobody would send it.
# Arguments: our pid, kilobytes of address space ("" for no limit), CPU seconds, then the program.
_LAUNCH = (
    '[ -z "$1" ] || [ "$PPID" = "$1" ] || exit 125; '
    f"ulimit -c 0; ulimit -n {_MAX_OPEN_FILES}; ulimit -t $3; "
    '[ -z "$2" ] || ulimit -v $2; shift 3; exec "$@"'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How a child ended. A negative `returncode` is the signal that killed it."""

    returncode: int
    stdout: bytes
    stderr_tail: str
    timed_out: bool = False
    killed_for_output: bool = False

    @property
    def is_ok(self) -> bool:
        return self.returncode == 0 and not self.timed_out and not self.killed_for_output


def start_lasting(argv: Sequence[str], *, pass_fds: Sequence[int]) -> "subprocess.Popen[bytes]":
    """A process of ours that lives beside us; its caller ends and reaps it. It says nothing, and
    must notice itself when we are gone."""
    return subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=_environment(),
        cwd="/",
        start_new_session=True,
        pass_fds=pass_fds,
    )


@asynccontextmanager
async def streaming(
    argv: Sequence[str],
    *,
    cpu_limit_s: float,
    memory_bytes: int | None = None,
    stdin: int = subprocess.DEVNULL,
    pass_fds: Sequence[int] = (),
    environment: Mapping[str, str] = MappingProxyType({}),
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A child whose output is read while it runs. Arguments are for all users of the machine to
    see, so what is secret goes into its `environment`. The caller drains `stdout` and `stderr`; on
    leaving the block, however it is left, the whole group is killed and reaped."""
    try:
        process = await asyncio.create_subprocess_exec(
            *_launched(argv, cpu_limit_s, memory_bytes),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**_environment(), **environment},
            cwd="/",
            start_new_session=True,
            pass_fds=pass_fds,
        )
    except OSError as error:
        if error.errno not in RAN_OUT:
            raise
        raise TransientError(f"no program can be started now: {error.strerror}") from None
    try:
        _lower_priority(process.pid)
        yield process
    finally:
        await _kill_and_reap(process)


async def run(
    argv: Sequence[str],
    *,
    timeout_s: float,
    memory_bytes: int | None = None,
    max_output_bytes: int,
    pass_fds: Sequence[int] = (),
    environment: Mapping[str, str] = MappingProxyType({}),
) -> Exit:
    """Runs a program to its end, or kills its group: at the time limit, when it prints more than
    `max_output_bytes`, when we are cancelled, and (Linux) when this process dies."""
    stdout, stderr = bytearray(), bytearray()
    timed_out = False
    async with streaming(
        argv,
        cpu_limit_s=timeout_s,
        memory_bytes=memory_bytes,
        pass_fds=pass_fds,
        environment=environment,
    ) as process:
        try:
            async with asyncio.timeout(timeout_s), asyncio.TaskGroup() as group:
                group.create_task(_keep_head(process, stdout, max_output_bytes))
                group.create_task(_keep_tail(process, stderr))
                group.create_task(process.wait())
        except TimeoutError:
            timed_out = True
    returncode = process.returncode
    return Exit(
        returncode=-signal.SIGKILL if returncode is None else returncode,
        stdout=bytes(stdout[:max_output_bytes]),
        stderr_tail=stderr.decode("utf-8", "replace"),
        timed_out=timed_out,
        killed_for_output=len(stdout) > max_output_bytes,
    )


def resident_bytes(pid: int) -> int:
    """How much memory a child really uses; 0 where the system does not tell, or it has ended."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * _PAGE_BYTES


def machine_memory_bytes() -> int:
    """What this machine has, or this container may use."""
    found = _PAGE_BYTES * os.sysconf("SC_PHYS_PAGES")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # cgroups of version 2 and 1
        try:
            limit = Path("/sys/fs/cgroup", name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if limit.isdecimal():
            found = min(found, int(limit))
    return found


def _launched(argv: Sequence[str], timeout_s: float, memory_bytes: int | None) -> list[str]:
    program = shutil.which(argv[0])
    if program is None:
        raise ProgramMissingError(f"program not found: {argv[0]}")
    setpriv = shutil.which("setpriv")  # util-linux: part of every Debian, absent on macOS
    return [
        *((setpriv, "--pdeathsig", "KILL", "--") if setpriv else ()),
        "/bin/sh",
        "-c",
        _LAUNCH,
        "sh",
        str(os.getpid()) if setpriv else "",
        str(memory_bytes // 1024) if memory_bytes else "",
        # An orphan that nobody watches burns no more than this; threads add up, hence the factor.
        str(int(timeout_s * (os.cpu_count() or 1)) + 1),
        os.path.abspath(program),
        *argv[1:],
    ]


def _environment() -> dict[str, str]:
    passed = {name: os.environ[name] for name in _PASSED_ENV if name in os.environ}
    return {"LC_ALL": "C.UTF-8", **passed}


def _lower_priority(pid: int) -> None:
    """Looking at a file must not delay sending one."""
    try:
        os.setpriority(os.PRIO_PGRP, pid, _NICENESS)
    except (ProcessLookupError, PermissionError):
        log.debug("child keeps its priority", pid=pid)


async def _keep_head(process: asyncio.subprocess.Process, kept: bytearray, most: int) -> None:
    """The first bytes of its output: one more than it may print, and it is killed."""
    assert process.stdout is not None
    while data := await process.stdout.read(_READ_BYTES):
        kept += data[: most + 1 - len(kept)]
        if len(kept) > most:
            _kill_group(process)


async def _keep_tail(process: asyncio.subprocess.Process, kept: bytearray) -> None:
    assert process.stderr is not None
    while data := await process.stderr.read(_READ_BYTES):
        kept += data
        del kept[:-_STDERR_TAIL_BYTES]


def _kill_group(process: asyncio.subprocess.Process) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


async def _kill_and_reap(process: asyncio.subprocess.Process) -> None:
    """Reaping goes on in asyncio when this is cancelled again, or when a child hangs in the kernel
    on a dead network file system, where not even SIGKILL reaches it: then we stop waiting."""
    if process.returncode is not None and _pipes_ended(process):
        return  # nobody is left, and the number may be another group's by now
    _kill_group(process)
    try:
        async with asyncio.timeout(_REAP_TIMEOUT_S):
            await process.wait()
    except TimeoutError:
        log.warning("killed child does not end", pid=process.pid)


def _pipes_ended(process: asyncio.subprocess.Process) -> bool:
    return all(pipe is None or pipe.at_eof() for pipe in (process.stdout, process.stderr))
