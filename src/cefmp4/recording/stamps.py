"""What identifies the content of an open file. Its birth is part of it: an inode number is used
again at once; with the moment of its birth, and its device, it names one file for ever."""

import ctypes
import os

from cefmp4.model.stream import FileStamp
from cefmp4.recording.mounts import fs_type_of_fd, is_remote

NS = 1_000_000_000

_AT_EMPTY_PATH = 0x1000
_STATX_BTIME = 0x800


class _Moment(ctypes.Structure):
    _fields_ = (("sec", ctypes.c_int64), ("nsec", ctypes.c_uint32), ("_pad", ctypes.c_int32))


class _Statx(ctypes.Structure):
    """As much of struct statx as is read here; the kernel writes all 256 bytes."""

    _fields_ = (
        ("mask", ctypes.c_uint32),
        ("_until_atime", ctypes.c_uint8 * 60),
        ("_atime", _Moment),
        ("btime", _Moment),
        ("_rest", ctypes.c_uint8 * 160),
    )


_statx = getattr(ctypes.CDLL(None), "statx", None)  # Python has none, and a C library may lack it


def stamp_of(facts: os.stat_result, birth_ns: int = 0) -> FileStamp:
    return FileStamp(
        facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, birth_ns, facts.st_dev
    )


def birth_ns(fd: int) -> int:
    """0 where the file system does not tell, or where another machine does: a Windows server gives
    a new file the birth time of the one that had its name a few seconds ago. It takes 40 us, of
    which all but two go to find out what kind of file system that is: ask once."""
    if _statx is None or is_remote(fs_type_of_fd(fd)):
        return 0
    facts = _Statx()
    done = _statx(fd, b"", _AT_EMPTY_PATH, _STATX_BTIME, ctypes.byref(facts))
    if done != 0 or not facts.mask & _STATX_BTIME:
        return 0
    return int(facts.btime.sec) * NS + int(facts.btime.nsec)
