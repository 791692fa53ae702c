"""What a writer is asked for, the media it writes, and the pace at which it does."""

import os
import secrets
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

STEP = 256 * 1024
SEED_SECONDS = 3
BYTES_PER_SECOND = 2_300_000  # of the media, roughly: what one second of it takes
CACHE_VARIABLE = "WRITERS_CACHE"

_FFMPEG = ("ffmpeg", "-v", "error", "-nostdin", "-y")

Write = Callable[["Recording"], None]


@dataclass(frozen=True, slots=True)
class Writer:
    """One way to write a file. `unplayable` are patterns of the files that no player takes."""

    name: str
    about: str
    write: Write
    suffix: str = ".mp4"
    unplayable: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recording:
    """`seconds` of media into `output`, `speed` times as fast as they pass; 0 is without limit."""

    output: Path
    seconds: float
    speed: float
    cache: Path

    @cached_property
    def seed(self) -> Path:
        """A short noisy clip that recorders repeat; made once, whoever comes first."""
        return _made_once(self.cache / "seed.mkv", _make_seed)

    @cached_property
    def content(self) -> bytes:
        """A finished MP4 whose end no other writer has: padding that players skip."""
        seed, seconds = self.seed, self.seconds

        def make(path: Path) -> None:
            ffmpeg(*_repeated(seed, seconds), "-c", "copy", "-f", "mp4", str(path))

        finished = _made_once(self.cache / f"finished-{seconds:g}.mp4", make)
        return finished.read_bytes() + padding(secrets.token_bytes(1024))

    @cached_property
    def outside(self) -> Path:
        """A folder that nobody watches, on the file system of the cache."""
        return Path(tempfile.mkdtemp(dir=self.cache))

    @property
    def bytes_per_second(self) -> float:
        return self.speed * BYTES_PER_SECOND

    @property
    def pace(self) -> "Pace":
        return Pace(self.bytes_per_second)

    def source(self, content: bytes | None = None) -> Path:
        """The content as a file outside the watched folder, for programs that copy."""
        path = self.outside / "source.mp4"
        path.write_bytes(self.content if content is None else content)
        return path

    def ffmpeg_input(self, seconds: float | None = None) -> list[str]:
        """With a remark, so that no two recordings are the same."""
        remark = ["-metadata", f"comment={secrets.token_hex(8)}"]
        return [*_repeated(self.seed, seconds or self.seconds, self.speed), *remark]


class Pace:
    """Lets bytes pass no faster than a rate; its clock starts with the first of them."""

    def __init__(self, bytes_per_second: float) -> None:
        self._rate = bytes_per_second
        self._started = 0.0
        self._done = 0

    def passed(self, count: int) -> None:
        self._started = self._started or time.monotonic()
        self._done += count
        if self._rate:
            time.sleep(max(0.0, self._started + self._done / self._rate - time.monotonic()))


def pieces(content: bytes, size: int = STEP) -> Iterator[tuple[int, memoryview]]:
    view = memoryview(content)
    for offset in range(0, len(content), size):
        yield offset, view[offset : offset + size]


def padding(filler: bytes) -> bytes:
    """An MP4 box of nothing."""
    return struct.pack(">I4s", 8 + len(filler), b"free") + filler


def ffmpeg(*arguments: str) -> None:
    subprocess.run([*_FFMPEG, *arguments], check=True)


def start_recorder(recording: Recording) -> "subprocess.Popen[bytes]":
    """A plain MP4, made by a process that one can stop or kill."""
    options = ["-c", "copy", "-f", "mp4", str(recording.output)]
    return subprocess.Popen([*_FFMPEG, *recording.ffmpeg_input(), *options])


def wait_half_way(recording: Recording, recorder: "subprocess.Popen[bytes]") -> None:
    half = recording.seconds * BYTES_PER_SECOND / 2
    while recorder.poll() is None:
        if recording.output.exists() and recording.output.stat().st_size >= half:
            return
        time.sleep(0.02)
    raise RuntimeError("the recorder ended before it was half way")


def _repeated(clip: Path, seconds: float, speed: float = 0) -> list[str]:
    rate = ["-readrate", str(speed)] if speed else []
    return [*rate, "-stream_loop", "-1", "-i", str(clip), "-t", str(seconds)]


def _make_seed(path: Path) -> None:
    ffmpeg(
        *("-f", "lavfi", "-i", "testsrc2=s=640x360:r=30,noise=alls=60:allf=t"),
        *("-f", "lavfi", "-i", "sine=440:r=48000", "-t", str(SEED_SECONDS)),
        *("-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-g", "30"),
        *("-b:v", "16M", "-maxrate", "16M", "-bufsize", "16M", "-pix_fmt", "yuv420p"),
        *("-c:a", "aac", "-b:a", "128k", "-f", "matroska", str(path)),
    )


def _made_once(path: Path, make: Callable[[Path], None]) -> Path:
    """Complete or absent, also when several processes make it at the same moment."""
    if not path.exists():
        beside = path.with_name(f"{path.name}.{os.getpid()}")
        make(beside)
        beside.rename(path)
    return path
