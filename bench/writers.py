"""Programs that write recordings, each a process of its own, and the files they begin with.
`python -m bench.writers record|fleet ...`"""

import argparse
import os
import random
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

MIB = 1024 * 1024
BLOCK = MIB
TICK_S = 0.25
VARIED_BYTES = 16


def make_head(path: Path) -> None:
    """A second of playable MP4, so that what examines the files finds what it would find in real
    ones; without ffmpeg a head that only looks like one."""
    if shutil.which("ffmpeg"):
        subprocess.run(
            [
                "ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", "testsrc=size=320x240:rate=25",
                "-t", "1", "-c:v", "mpeg4", "-movflags", "+faststart", "-f", "mp4", str(path),
            ],
            check=True, timeout=60,
        )  # fmt: skip
    else:
        path.write_bytes(struct.pack(">I4s4sI4s", 20, b"ftyp", b"isom", 0, b"isom"))


def blocks(total: int, seed: int) -> Iterator[bytes]:
    """Incompressible bytes: 16 random blocks over and over, each marked with its place and seed."""
    pool = [os.urandom(BLOCK) for _ in range(min(16, total // BLOCK + 1))]
    number = 0
    while total > 0:
        mark = struct.pack(">QQ", seed, number)
        block = mark + pool[number % len(pool)][VARIED_BYTES:]
        yield block[:total]
        total -= len(block)
        number += 1


def box(size: int) -> bytes:
    """The header of an MP4 box that players skip."""
    return struct.pack(">I4s", size, b"free")


def write_finished(path: Path, size: int, head: bytes, seed: int) -> None:
    with path.open("wb") as file:
        file.write(head)
        file.write(box(size - len(head)))
        for block in blocks(size - len(head) - 8, seed):
            file.write(block)


def record(path: Path, size: int, rate: float, head: bytes) -> float:
    """Appends at `rate` bytes a second and patches the head at the end, as most recorders do.
    Returns the time of the close."""
    with path.open("wb", buffering=0) as file:
        file.write(head + box(8))
        started, written = time.monotonic(), 0
        for block in blocks(size - len(head) - 8, time.time_ns()):
            file.write(block)
            written += len(block)
            time.sleep(max(0.0, started + written / rate - time.monotonic()))
        file.seek(len(head))
        file.write(box(size - len(head)))
    return time.time()


def fleet(folder: Path, files: int, rate: float, seconds: float, head: bytes) -> None:
    """Many files that grow together, each with a beginning of its own length, so that their parts
    do not fill up all at the same moment."""
    chance = random.Random(files)
    pool = os.urandom(16 * MIB)
    handles, rates = [], []
    for number in range(files):
        handle = (folder / f"camera-{number:03}.mp4").open("wb", buffering=0)
        handle.write(head + box(8))
        handle.write(pool[: chance.randrange(5 * MIB, 15 * MIB)])
        handles.append(handle)
        rates.append(rate * chance.uniform(0.7, 1.3))
    started = time.monotonic()
    written = [0] * files
    print("growing", flush=True)
    while (age := time.monotonic() - started) < seconds:
        for number, handle in enumerate(handles):
            due = int(age * rates[number]) - written[number]
            start = chance.randrange(MIB)
            written[number] += handle.write(pool[start : start + due])
        time.sleep(max(0.0, TICK_S - (time.monotonic() - started - age)))
    print("done", flush=True)
    time.sleep(seconds)  # they stay open: this is about growing, not about the end


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=("record", "fleet"))
    parser.add_argument("path", type=Path)
    parser.add_argument("--bytes", type=int, default=0)
    parser.add_argument("--files", type=int, default=0)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seconds", type=float, default=0)
    parser.add_argument("--head", type=Path, required=True)
    options = parser.parse_args()
    head = options.head.read_bytes()
    if options.kind == "record":
        print(record(options.path, options.bytes, options.rate, head), flush=True)
    else:
        fleet(options.path, options.files, options.rate, options.seconds, head)


if __name__ == "__main__":
    main()
