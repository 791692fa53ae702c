"""A file on its way from the store: it grows under a name of its own in the folder that it is meant
for, and gets its real name when it is whole. What a killed process leaves is gone on with, because
the name is that of one content: key, ETag and size are in it. Everything here blocks.

Bytes are only ever added at its end, so its length says how far it came."""

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import Self

from cefmp4.errors import RefusedError
from cefmp4.model.object import StoredObject
from cefmp4.recording.beneath import folder_of, rename_to_free
from cefmp4.transfer.check import Check, Known
from cefmp4.transfer.locked_file import open_locked, short_name

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_FREE_IT = "--overwrite replaces it"


class PartFile:
    """Locked while it is open, so that two processes never write to one."""

    def __init__(self, folder: int, name: str, goal: str, fd: int) -> None:
        self._folder = folder
        self._name = name
        self._goal = goal
        self.fd = fd
        self.size = os.fstat(fd).st_size

    @classmethod
    def open(cls, root: str, relpath: str, stored: StoredObject) -> Self:
        """Makes the folders on the way. None of them may be a link."""
        name = f".cefmp4-{short_name(stored.key, stored.etag, str(stored.size))}.part"
        with folder_of(root, relpath, makes=True) as (found, goal):
            folder = os.dup(found)
        try:
            part = cls(folder, name, goal, open_locked(folder, name, 0o666))
        except BaseException:
            os.close(folder)
            raise
        if part.size > stored.size or not stored.etag:  # nothing tells whose bytes they are
            part.start_over()
        return part

    def close(self) -> None:
        os.close(self.fd)
        os.close(self._folder)

    def append(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            count = os.pwrite(self.fd, view, self.size)
            self.size += count
            view = view[count:]

    def start_over(self) -> None:
        os.ftruncate(self.fd, 0)
        self.size = 0

    def discard(self) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self._name, dir_fd=self._folder)

    def place(self, *, overwrite: bool) -> None:
        """Gives it its name, once it is surely on the disk."""
        os.fsync(self.fd)
        if overwrite:
            os.rename(self._name, self._goal, src_dir_fd=self._folder, dst_dir_fd=self._folder)
            return
        try:
            rename_to_free(self._folder, self._name, self._folder, self._goal)
        except FileExistsError:
            raise RefusedError("another file took its name meanwhile", hint=_FREE_IT) from None


def is_there(
    root: str, relpath: str, check: Check, is_stopped: Callable[[], bool], *, overwrite: bool
) -> bool:
    """Whether the file has these bytes already. Raises RefusedError where something is in the way
    that is not to be replaced."""
    try:
        with folder_of(root, relpath) as (folder, name):
            facts = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if not stat.S_ISREG(facts.st_mode):
                raise RefusedError("something that is no file has this name")
            fd = os.open(name, _READ, dir_fd=folder)
    except FileNotFoundError:
        return False
    try:
        is_same = check.holds(fd, is_stopped)
    finally:
        os.close(fd)
    if is_same and check.by is not Known.SIZE:
        return True
    if not overwrite:
        what = "a file of this size, and nothing tells whether of these bytes," if is_same else ""
        raise RefusedError(f"{what or 'another file'} is there", hint=_FREE_IT)
    return False
