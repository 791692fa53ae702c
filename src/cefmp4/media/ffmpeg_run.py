"""One run of ffmpeg: its outputs are pumped, its progress is followed, and it is killed when it
stalls, takes too long, is cancelled, or when any of the pumps fails."""

import asyncio
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from cefmp4 import proc
from cefmp4.errors import PermanentError, TransientError, first_error
from cefmp4.media.pipe import Pipe
from cefmp4.media.stderr import Stderr
from cefmp4.model.part import MIB

log = structlog.get_logger()


Feed = Callable[[asyncio.StreamWriter], Coroutine[Any, Any, None]]
BRIEFLY_S = 20.0
_BRIEF_BYTES = 64 * 1024
_READ_BYTES = 64 * 1024
_PIPE_BYTES = 1024 * 1024  # the kernel's limit for everybody; fewer wake-ups than with 64 KiB
_MAX_LINE = 4096
_LOOK_EVERY_S = 0.2  # in which ffmpeg can take no more than a few hundred MB


class Output(Protocol):
    """One of the things that ffmpeg makes. `options`: all of its command but where it goes."""

    @property
    def options(self) -> Sequence[str]: ...

    async def pump(self, pipe: Pipe) -> None: ...


@dataclass(slots=True)
class Pace:
    """Where ffmpeg is, by its own account, in a recording of that length."""

    length_s: float = 0.0
    out_time_s: float = 0.0
    fps: float = 0.0
    speed: float = 0.0  # recorded seconds per second
    moved_at: float = 0.0

    @property
    def fraction(self) -> float:
        return min(1.0, self.out_time_s / self.length_s) if self.length_s else 0.0

    @property
    def eta_s(self) -> float | None:
        left_s = max(0.0, self.length_s - self.out_time_s)
        return left_s / self.speed if self.speed > 0 else None

    def take(self, key: str, value: str, now: float) -> bool:
        """Whether a report is complete with this line."""
        number = _number(value)
        if key == "out_time_us" and number is not None:
            seconds = max(0.0, number / 1e6)
            if seconds > self.out_time_s:
                self.moved_at = now
            self.out_time_s = max(self.out_time_s, seconds)
        elif key == "fps":
            self.fps = number or 0.0
        elif key == "speed":
            self.speed = number or 0.0
        return key == "progress"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLimits:
    """`slowest_speed`: recorded seconds per second below which it is given up. `stall_s`: longest
    time in which neither ffmpeg gets on nor a segment is stored. `memory_bytes`: what it really
    uses. A limit of its address space would count what encoders and drivers map and never touch."""

    slowest_speed: float = 0.02
    grace_s: float = 120.0
    stall_s: float = 60.0
    memory_bytes: int | None = None

    def total_s(self, length_s: float) -> float:
        return self.grace_s + length_s / self.slowest_speed


@dataclass(slots=True)
class FfmpegRun:
    """`on_pace` is called at every report; `moved` may be called to say that something else than
    ffmpeg got on: while the store is slow, ffmpeg has to wait for it."""

    limits: RunLimits
    pace: Pace
    on_pace: Callable[[Pace], None]
    pass_fds: Sequence[int] = ()
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    feed: Feed | None = None  # writes to its standard input, and closes it
    stderr: Stderr = field(default_factory=Stderr)
    returncode: int = -1
    _began_at: float = 0.0

    def moved(self) -> None:
        self.pace.moved_at = time.monotonic()

    def reached(self, out_time_s: float) -> None:
        """What came out of it says more than its reports: there is none until every output has
        begun, and a sheet of thumbnails begins when the recording ends."""
        if out_time_s > self.pace.out_time_s:
            now = time.monotonic()
            self.pace.out_time_s, self.pace.moved_at = out_time_s, now
            self.pace.speed = out_time_s / max(now - self._began_at, 1e-3)
            self.on_pace(self.pace)

    async def run(
        self, argv: Sequence[str], outputs: Sequence[Output], rest: Sequence[str] = ()
    ) -> None:
        """`rest`: of the command, after all outputs. How it ended is in `returncode` and `stderr`.
        Raises the first error of the pumps, unwrapped."""
        self.moved()
        self._began_at = self.pace.moved_at
        total_s = self.limits.total_s(self.pace.length_s)
        with first_error():
            try:
                async with asyncio.timeout(total_s):
                    await self._run(argv, outputs, rest)
            except TimeoutError as error:
                raise TransientError(f"ffmpeg needed more than {total_s:.0f} s for it") from error

    async def _run(
        self, argv: Sequence[str], outputs: Sequence[Output], rest: Sequence[str]
    ) -> None:
        with _open_pipes(len(outputs)) as (pipes, fds):
            async with proc.streaming(
                [*argv, *_into(outputs, fds), *rest],
                cpu_limit_s=self.limits.total_s(self.pace.length_s),
                stdin=subprocess.PIPE if self.feed else subprocess.DEVNULL,
                pass_fds=(*self.pass_fds, *fds),
                environment=self.environment,
            ) as process:
                _close_all(fds)
                await self._attend(process, zip(outputs, pipes, strict=True))
        log.debug("ffmpeg ended", returncode=self.returncode, errors=self.stderr.errors)

    async def _attend(
        self, process: asyncio.subprocess.Process, outputs: Iterable[tuple[Output, Pipe]]
    ) -> None:
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(self._watch(process.pid), name="watchdog")
            async with asyncio.TaskGroup() as work:
                for number, (output, pipe) in enumerate(outputs):
                    work.create_task(output.pump(pipe), name=f"pump {number}")
                if self.feed and process.stdin:
                    work.create_task(self.feed(process.stdin), name="feed")
                work.create_task(self._follow(process.stdout), name="progress")
                work.create_task(self._listen(process.stderr), name="stderr")
                ended = work.create_task(process.wait(), name="ffmpeg")
            watch.cancel()
        self.returncode = ended.result()

    async def _watch(self, pid: int) -> None:
        """Also over its memory: a picture may claim to be so large that one of it fills a small
        machine."""
        limit = self.limits.memory_bytes
        while True:
            idle_s = time.monotonic() - self.pace.moved_at
            if idle_s >= self.limits.stall_s:
                raise TransientError(f"ffmpeg got no further for {idle_s:.0f} s")
            if limit and (used := proc.resident_bytes(pid)) > limit:
                needs = f"ffmpeg needs more than {limit / MIB:,.0f} MiB of memory for it"
                raise PermanentError(
                    needs, hint=f"it had {used / MIB:,.0f}; raise FFMPEG_MEMORY_BYTES"
                )
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _follow(self, stdout: asyncio.StreamReader | None) -> None:
        rest = ""
        while stdout and (data := await stdout.read(_READ_BYTES)):
            *lines, rest = (rest + data.decode("ascii", "replace")).split("\n")
            rest = rest[:_MAX_LINE]
            for line in lines:
                key, _, value = line.partition("=")
                if self.pace.take(key.strip(), value.strip(), time.monotonic()):
                    self.on_pace(self.pace)

    async def _listen(self, stderr: asyncio.StreamReader | None) -> None:
        while stderr and (data := await stderr.read(_READ_BYTES)):
            self.stderr.add(data)


@contextmanager
def _open_pipes(count: int) -> Iterator[tuple[list[Pipe], list[int]]]:
    """One per output, and the ends to write to. Close those when the child has them, or the end of
    an output would never be seen."""
    pipes: list[Pipe] = []
    writing: list[int] = []
    with ExitStack() as stack:
        stack.callback(_close_all, writing)
        for _ in range(count):
            read_fd, write_fd = os.pipe()
            writing.append(write_fd)
            pipes.append(Pipe(read_fd))
            stack.callback(pipes[-1].close)
            _enlarge(write_fd)
        yield pipes, writing


def _close_all(fds: list[int]) -> None:
    while fds:
        os.close(fds.pop())


def _enlarge(fd: int) -> None:
    if sys.platform == "linux":
        try:
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        except OSError:
            return  # the user's share of pipe memory is used up: it works, with more wake-ups


def _into(outputs: Sequence[Output], fds: Sequence[int]) -> Iterator[str]:
    for output, fd in zip(outputs, fds, strict=True):
        yield from output.options
        yield f"pipe:{fd}"


async def run_briefly(argv: Sequence[str], *, memory_bytes: int | None = None) -> proc.Exit:
    """What takes a second and says little: a few frames of an encoder, a version."""
    return await proc.run(
        argv, timeout_s=BRIEFLY_S, memory_bytes=memory_bytes, max_output_bytes=_BRIEF_BYTES
    )


def _number(text: str) -> float | None:
    try:
        return float(text.removesuffix("x"))
    except ValueError:
        return None
