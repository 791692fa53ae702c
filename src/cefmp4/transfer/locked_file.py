"""A file of ours that one process alone may use at a time, under a name that anybody may know, in a
folder that others may write to. Blocking."""

import fcntl
import os
import stat
from hashlib import sha256

from cefmp4.errors import RefusedError, SourceError

_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_TRIES = 5


def short_name(*told: str) -> str:
    """For what may be called anything, and be of any length."""
    return sha256("\0".join(told).encode()).hexdigest()[:32]


def open_locked(folder: int, name: str, mode: int) -> int:
    """Makes it where it is missing. Never one that somebody else planted there: he could go on
    writing to it. Raises RefusedError while another process has it."""
    for _ in range(_TRIES):
        found = _open(folder, name, mode)
        if found is None:
            continue
        fd, is_new = found
        try:
            if _is_usable(folder, name, fd, is_new):
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
    raise SourceError(f"somebody else goes on making {name}")


def _open(folder: int, name: str, mode: int) -> tuple[int, bool] | None:
    """And whether it is new. None: it went, or was removed, so that it can be made."""
    try:
        return os.open(name, _FLAGS | os.O_CREAT | os.O_EXCL, mode, dir_fd=folder), True
    except FileExistsError:
        pass
    try:
        return os.open(name, _FLAGS, dir_fd=folder), False
    except FileNotFoundError:
        return None
    except OSError:  # a link, or nothing that can be opened
        os.unlink(name, dir_fd=folder)
        return None


def _is_usable(folder: int, name: str, fd: int, is_new: bool) -> bool:
    """Whether it is ours alone now, and still has its name. Removes what is somebody else's."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RefusedError("another process is at it right now") from None
    facts = os.fstat(fd)
    try:
        is_named = os.path.samestat(os.stat(name, dir_fd=folder, follow_symlinks=False), facts)
    except FileNotFoundError:
        return False
    is_own = stat.S_ISREG(facts.st_mode) and facts.st_nlink == 1 and facts.st_uid == os.geteuid()
    if is_named and not (is_own or is_new):
        os.unlink(name, dir_fd=folder)
    return is_named and (is_own or is_new)
