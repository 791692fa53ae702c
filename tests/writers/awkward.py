"""Programs that fill a file in ways that make its size, its events or its times say nothing."""

import ctypes
import mmap
import os
import random
import signal
import time
from collections.abc import Callable

from tests.writers.recording import Pace, Recording, Writer, pieces, start_recorder, wait_half_way

MIB = 1024 * 1024
NEW = os.O_CREAT | os.O_RDWR | os.O_TRUNC
KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE
BLOCK = 4096
PAUSE_S = 2.0


def _fill(fd: int, content: bytes, pace: Pace) -> None:
    for offset, piece in pieces(content):
        os.pwrite(fd, piece, offset)
        pace.passed(len(piece))


def _preallocated(prepare: Callable[[int, int], None]) -> Callable[[Recording], None]:
    """Space first, then the content in order, then the right size."""

    def write(recording: Recording) -> None:
        content = recording.content
        fd = os.open(recording.output, NEW, 0o644)
        prepare(fd, len(content))
        _fill(fd, content, recording.pace)
        os.ftruncate(fd, len(content))
        os.close(fd)

    return write


def _exactly(fd: int, size: int) -> None:
    os.posix_fallocate(fd, 0, size)


def _too_much(fd: int, size: int) -> None:
    os.posix_fallocate(fd, 0, size * 6 // 5)


def _invisibly(fd: int, size: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    room = ctypes.c_long(size * 6 // 5)
    if libc.fallocate(fd, KEEP_SIZE, ctypes.c_long(0), room):
        raise OSError(ctypes.get_errno(), "fallocate")


def torrent(recording: Recording) -> None:
    content, pace = recording.content, recording.pace
    parts = list(pieces(content, MIB))
    random.Random(len(content)).shuffle(parts)
    fd = os.open(recording.output, NEW, 0o644)
    os.ftruncate(fd, len(content))
    for offset, piece in parts:
        os.pwrite(fd, piece, offset)
        pace.passed(len(piece))
    os.close(fd)


def memory_mapped(recording: Recording) -> None:
    content, pace = recording.content, recording.pace
    fd = os.open(recording.output, NEW, 0o644)
    os.ftruncate(fd, len(content))
    with mmap.mmap(fd, len(content)) as mapping:
        os.close(fd)
        for offset, piece in pieces(content):
            mapping[offset : offset + len(piece)] = bytes(piece)
            pace.passed(len(piece))


def direct(recording: Recording) -> None:
    """Whole blocks only, so the last one is too long until the end."""
    content, pace = recording.content, recording.pace
    fd = os.open(recording.output, NEW | os.O_DIRECT, 0o644)
    with mmap.mmap(-1, MIB) as buffer:  # memory that is aligned, as this needs it
        for offset, piece in pieces(content, MIB):
            buffer[: len(piece)] = bytes(piece)
            whole = -(-len(piece) // BLOCK) * BLOCK
            buffer[len(piece) : whole] = bytes(whole - len(piece))
            with memoryview(buffer) as view, view[:whole] as blocks:
                os.pwrite(fd, blocks, offset)
            pace.passed(len(piece))
    os.ftruncate(fd, len(content))
    os.close(fd)


def header_patched(recording: Recording) -> None:
    """The size of the media so far, each second of it, in the head; the right one at the end."""
    content, pace = recording.content, recording.pace
    fd = os.open(recording.output, NEW, 0o644)
    for offset, piece in pieces(content):
        os.pwrite(fd, piece, offset)
        os.pwrite(fd, (offset + len(piece)).to_bytes(4, "big"), 40)
        pace.passed(len(piece))
    os.pwrite(fd, content[40:44], 40)
    os.close(fd)


def reopened(recording: Recording) -> None:
    pace = recording.pace
    for _, piece in pieces(recording.content):
        with recording.output.open("ab", buffering=0) as file:
            file.write(piece)
        pace.passed(len(piece))


def obs(recording: Recording) -> None:
    """Tries whether it may write there: the final name appears, empty, and goes again."""
    recording.output.touch()
    recording.output.unlink()
    time.sleep(0.6)
    fd = os.open(recording.output, NEW, 0o644)
    _fill(fd, recording.content, recording.pace)
    os.close(fd)


def hard_linked(recording: Recording) -> None:
    """The folder sees a name appear; all that is written goes through a name outside."""
    content, pace = recording.content, recording.pace
    outside = recording.outside / "elsewhere.mp4"
    fd = os.open(outside, NEW, 0o644)
    is_linked = False
    for offset, piece in pieces(content):
        os.pwrite(fd, piece, offset)
        if not is_linked and offset > len(content) // 3:
            os.link(outside, recording.output)
            is_linked = True
        pace.passed(len(piece))
    os.close(fd)
    outside.unlink()


def paused(recording: Recording) -> None:
    """Stopped half way for a moment, with its file open."""
    recorder = start_recorder(recording)
    wait_half_way(recording, recorder)
    recorder.send_signal(signal.SIGSTOP)
    time.sleep(PAUSE_S)
    recorder.send_signal(signal.SIGCONT)
    if recorder.wait():
        raise RuntimeError(f"ffmpeg ended with {recorder.returncode}")


AWKWARD = (
    Writer("preallocated", "the final size at once, then filled", _preallocated(_exactly)),
    Writer("preallocated_too_big", "trimmed at the end", _preallocated(_too_much)),
    Writer("preallocated_keep_size", "space that no size shows", _preallocated(_invisibly)),
    Writer("torrent", "pieces in any order", torrent),
    Writer("memory_mapped", "no event and no descriptor while it is filled", memory_mapped),
    Writer("direct", "past the page cache, the last block padded and cut", direct),
    Writer("header_patched", "the head is patched all the time", header_patched),
    Writer("reopened", "one open, append and close for each piece", reopened),
    Writer("obs", "created empty, deleted, created again", obs),
    Writer("hard_linked", "written through a name outside the folder", hard_linked),
    Writer("paused", "stands still half way", paused),
)
