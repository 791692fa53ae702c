"""Reaches what lies below a folder without following a link: names are looked up one by one, each
in the folder that was opened before. Whoever may write somewhere in between, and swaps a folder for
a link at any moment, leads nobody out. The root itself may be a link: that is the operator's word.
Everything here blocks."""

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_FOLDER = os.O_DIRECTORY | os.O_CLOEXEC
_WALK = getattr(os, "O_PATH", os.O_RDONLY) | _FOLDER | os.O_NOFOLLOW
_READ = os.O_RDONLY | _FOLDER | os.O_NOFOLLOW
_RENAME_NOREPLACE = 1
_SYS_OPENAT2 = ctypes.c_long(437)  # on every architecture
_NOT_SUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EMLINK}


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_RESOLVE_NO_SYMLINKS = 0x04
_HOW = ctypes.byref(_OpenHow(_READ, 0, _RESOLVE_NO_SYMLINKS))
_libc = ctypes.CDLL(None, use_errno=True)
_renameat2 = getattr(_libc, "renameat2", None)  # Python has none, and a C library may lack it


def open_root(root: str) -> int:
    """For looking up names only."""
    return os.open(root, _WALK & ~os.O_NOFOLLOW)


def open_folder(start: int, folder: str, *, makes: bool = False) -> int:
    """A folder below the open one `start`. `makes`: what is missing. Raises FileNotFoundError, and
    NotADirectoryError where there is a link or a file."""
    fd = os.dup(start)
    for name in folder.split("/") if folder else ():
        parent = fd
        try:
            fd = _enter(parent, name, makes)
        finally:
            os.close(parent)
    return fd


def _enter(parent: int, name: str, makes: bool) -> int:
    if name in ("", os.curdir, os.pardir):  # of a path that was not found by looking
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    try:
        return os.open(name, _WALK, dir_fd=parent)
    except FileNotFoundError:
        if not makes:
            raise
    with suppress(FileExistsError):  # somebody was faster
        os.mkdir(name, dir_fd=parent)
    return os.open(name, _WALK, dir_fd=parent)


def open_folder_to_read(root_fd: int, relpath: str) -> int:
    """A folder. None on the way may be a symbolic link, which it can become while we walk. Raises
    OSError, NotADirectoryError for a link."""
    # One call instead of one for each level: a third less CPU time for a look at many folders.
    path, size = os.fsencode(relpath or "."), ctypes.c_size_t(ctypes.sizeof(_OpenHow))
    fd = int(_libc.syscall(_SYS_OPENAT2, ctypes.c_int(root_fd), path, _HOW, size))
    if fd >= 0:
        return fd
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EPERM):  # an old kernel, or an old seccomp profile
        return _open_name_by_name(root_fd, relpath)
    raise OSError(errno.ENOTDIR if number == errno.ELOOP else number, os.strerror(number), relpath)


def _open_name_by_name(root_fd: int, relpath: str) -> int:
    path_fd = open_folder(root_fd, relpath)
    try:
        return os.open(".", _READ, dir_fd=path_fd)
    finally:
        os.close(path_fd)


@contextmanager
def folder_of(root: str, relpath: str, *, makes: bool = False) -> Iterator[tuple[int, str]]:
    """The open folder of a file, and the name that it has there."""
    folder, _, name = relpath.rpartition("/")
    top = open_root(root)
    try:
        fd = open_folder(top, folder, makes=makes)
    finally:
        os.close(top)
    try:
        yield fd, name
    finally:
        os.close(fd)


def look_up(root: str, relpath: str) -> os.stat_result:
    """What is there under this name; of a link, the link."""
    with folder_of(root, relpath) as (folder, name):
        return os.stat(name, dir_fd=folder, follow_symlinks=False)


def device_near(root: str, folder: str) -> int:
    """Of the folder, or of the nearest one on the way there that still exists."""
    while folder:
        try:
            return look_up(root, folder).st_dev
        except (FileNotFoundError, NotADirectoryError):
            folder = folder.rpartition("/")[0]
    return os.stat(root).st_dev


def rename_to_free(folder: int, name: str, to_folder: int, to_name: str) -> None:
    """Raises FileExistsError instead of overwriting anything."""
    number = errno.ENOSYS
    if _renameat2 is not None:
        words = os.fsencode(name), to_folder, os.fsencode(to_name)
        if _renameat2(folder, *words, _RENAME_NOREPLACE) == 0:
            return
        number = ctypes.get_errno()
    if number not in _NOT_SUPPORTED:
        raise OSError(number, os.strerror(number), name)
    try:  # NFS, and most of FUSE
        os.link(name, to_name, src_dir_fd=folder, dst_dir_fd=to_folder, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise
        _rename_after_look(folder, name, to_folder, to_name)
    else:
        os.unlink(name, dir_fd=folder)


def _rename_after_look(folder: int, name: str, to_folder: int, to_name: str) -> None:
    """Where the file system can neither refuse to overwrite nor link: a file that gets the name in
    this very moment is lost."""
    try:
        os.stat(to_name, dir_fd=to_folder, follow_symlinks=False)
    except FileNotFoundError:
        os.rename(name, to_name, src_dir_fd=folder, dst_dir_fd=to_folder)
        return
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), to_name)
