"""The kernel's inotify: its calls and the form of its events, and nothing of what they mean."""

import ctypes
import os
import select
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

IN_CLOSE_WRITE = 0x8
IN_MOVED_FROM = 0x40
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_DELETE_SELF = 0x400
IN_Q_OVERFLOW = 0x4000
IN_IGNORED = 0x8000
IN_ONLYDIR = 0x1000000
IN_ISDIR = 0x40000000

# Modifications, opens and reads are never asked for: with them, our own walk through some thousand
# folders overflows the queue.
WANTED = (
    IN_CLOSE_WRITE
    | IN_MOVED_FROM
    | IN_MOVED_TO
    | IN_CREATE
    | IN_DELETE
    | IN_DELETE_SELF
    | IN_ONLYDIR
)

_HEAD = struct.Struct("iIII")
_READ_BYTES = 16 * 1024  # some hundred events: others want to run, too
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class RawEvent:
    watch: int
    mask: int
    cookie: int
    name: str

    @property
    def is_folder(self) -> bool:
        return bool(self.mask & IN_ISDIR)


class Inotify:
    """Only `wait` blocks. Whoever opens it closes it."""

    def __init__(self) -> None:
        self._fd = self._wake = -1

    def open(self) -> None:
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._fd = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

    def close(self) -> None:
        """All watches end with it."""
        for fd in (self._fd, self._wake):
            if fd >= 0:
                os.close(fd)
        self._fd = self._wake = -1

    def wait(self, seconds: float) -> None:
        """For an event, or for `wake`, which any thread may call."""
        poller = select.poll()
        poller.register(self._fd, select.POLLIN)
        poller.register(self._wake, select.POLLIN)
        poller.poll(seconds * 1000)
        with suppress(BlockingIOError):
            os.eventfd_read(self._wake)

    def wake(self) -> None:
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    def add(self, folder_fd: int) -> int:
        """By descriptor: a path may lead elsewhere by now, and may be longer than the kernel takes.
        A folder that has a watch keeps its number."""
        path = f"/proc/self/fd/{folder_fd}".encode()
        return _checked(_libc.inotify_add_watch(self._fd, path, ctypes.c_uint32(WANTED)))

    def remove(self, watch: int) -> None:
        _libc.inotify_rm_watch(self._fd, watch)  # it may be gone already

    def read(self) -> list[RawEvent]:
        try:
            return list(parse(os.read(self._fd, _READ_BYTES)))
        except BlockingIOError:
            return []


def parse(data: bytes) -> Iterator[RawEvent]:
    at = 0
    while at + _HEAD.size <= len(data):
        watch, mask, cookie, length = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        yield RawEvent(watch, mask, cookie, os.fsdecode(data[at : at + length].rstrip(b"\0")))
        at += length


def _checked(answer: int) -> int:
    if answer >= 0:
        return answer
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
