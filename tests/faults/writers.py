"""A recorder as a process: `python -m tests.faults.writers BEHAVIOUR PATH SIZE SEED RATE`.

It writes a file the way real programs do, and prints size and SHA-256 of each finished version."""

import errno
import hashlib
import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator

STEP = 256 * 1024
MIB = 1024 * 1024


class Recording:
    """One file being written, with content that no other seed has."""

    def __init__(self, path: bytes, size: int, seed: int, rate: int) -> None:
        self.path = path
        self.size = size
        self.random = random.Random(seed)
        self._rate = rate

    def blocks(self, size: int) -> Iterator[bytes]:
        started, done = time.monotonic(), 0
        while done < size:
            block = self.random.randbytes(min(STEP, size - done))
            yield block
            done += len(block)
            if self._rate:
                time.sleep(max(0.0, started + done / self._rate - time.monotonic()))

    def append(self, fd: int, size: int) -> None:
        for block in self.blocks(size):
            _write_all(fd, block)

    def finish(self, fd: int) -> None:
        """Closes it; what it holds is told through the descriptor, whatever became of its name."""
        digest, size = hashlib.sha256(), 0
        while block := os.pread(fd, MIB, size):
            digest.update(block)
            size += len(block)
        os.close(fd)
        sys.stdout.write(json.dumps({"sha256": digest.hexdigest(), "size": size}) + "\n")
        sys.stdout.flush()


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _create(path: bytes) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)


def append(recording: Recording) -> None:
    fd = _create(recording.path)
    recording.append(fd, recording.size)
    recording.finish(fd)


def until_full(recording: Recording) -> None:
    """It ends when the disk does."""
    fd = _create(recording.path)
    try:
        recording.append(fd, recording.size)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
    recording.finish(fd)


def patch_head(recording: Recording) -> None:
    """As most muxers: the size of the media data is written into the head at the close."""
    fd = _create(recording.path)
    recording.append(fd, recording.size)
    os.pwrite(fd, recording.random.randbytes(8), min(40, recording.size))
    recording.finish(fd)


def patch_far(recording: Recording) -> None:
    """Some bytes anywhere, long after they were written."""
    fd = _create(recording.path)
    recording.append(fd, recording.size)
    for _ in range(3):
        os.pwrite(fd, recording.random.randbytes(16), recording.random.randrange(recording.size))
    recording.finish(fd)


def preallocate(recording: Recording) -> None:
    """Full size at once, filled piece by piece out of order, as download programs do."""
    fd = _create(recording.path)
    os.posix_fallocate(fd, 0, max(recording.size, 1))
    starts = list(range(0, recording.size, MIB))
    recording.random.shuffle(starts)
    for start in starts:
        at = start
        for block in recording.blocks(min(MIB, recording.size - start)):
            os.pwrite(fd, block, at)
            at += len(block)
    recording.finish(fd)


def rewrite_all(recording: Recording) -> None:
    """As `faststart`: everything is shifted at the close."""
    fd = _create(recording.path)
    recording.append(fd, recording.size)
    shift = recording.random.randbytes(4096)
    at, carried = 0, shift
    while True:
        block = os.pread(fd, STEP, at)
        os.pwrite(fd, carried, at)
        if not block:
            break
        at, carried = at + len(carried), carried[len(block) :] + block
        if len(block) < STEP:
            os.pwrite(fd, carried, at)
            break
    recording.finish(fd)


def truncate_rewrite(recording: Recording) -> None:
    """The recording begins again in the same file."""
    fd = _create(recording.path)
    recording.append(fd, recording.size // 2)
    os.ftruncate(fd, 0)
    os.lseek(fd, 0, os.SEEK_SET)
    recording.append(fd, recording.size)
    recording.finish(fd)


def reopen_append(recording: Recording) -> None:
    """One open and close per piece."""
    os.close(_create(recording.path))
    for _ in range(4):
        fd = os.open(recording.path, os.O_WRONLY | os.O_APPEND)
        recording.append(fd, recording.size // 4)
        os.close(fd)
        time.sleep(0.05)
    recording.finish(os.open(recording.path, os.O_RDONLY))


def replace(recording: Recording) -> None:
    """A tagger: writes a changed copy beside it and puts it in its place."""
    append(recording)
    time.sleep(recording.random.uniform(0.0, 2.0))
    beside = recording.path + b".tmp"
    fd = _create(beside)
    recording.append(fd, recording.size)
    os.close(fd)
    os.replace(beside, recording.path)
    recording.finish(os.open(recording.path, os.O_RDONLY))


def rename_at_end(recording: Recording) -> None:
    beside = recording.path + b".part"
    fd = _create(beside)
    recording.append(fd, recording.size)
    os.close(fd)
    os.replace(beside, recording.path)
    recording.finish(os.open(recording.path, os.O_RDONLY))


BEHAVIOURS: dict[str, Callable[[Recording], None]] = {
    function.__name__: function
    for function in (
        append,
        until_full,
        patch_head,
        patch_far,
        preallocate,
        rewrite_all,
        truncate_rewrite,
        reopen_append,
        replace,
        rename_at_end,
    )
}


def main() -> None:
    behaviour, path, size, seed, rate = sys.argv[1:]
    BEHAVIOURS[behaviour](Recording(os.fsencode(path), int(size), int(seed), int(rate)))


if __name__ == "__main__":
    main()
