"""What kind of file system lies below a path or an open file, and what it can be trusted with."""

import os
from functools import lru_cache
from pathlib import Path

UNKNOWN = ""

# Other hosts, or the host of a virtual machine, change these without our kernel seeing it.
_REMOTE = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "vboxsf", "virtiofs", "ceph", "afs", "lustre",
     "ocfs2", "gfs2", "beegfs", "gpfs", "prl_fs", "vmhgfs", "fakeowner", "fuse"}
)  # fmt: skip


def is_remote(fs_type: str) -> bool:
    """fuseblk is a local disk in a foreign format; everything else behind FUSE may be anywhere."""
    return fs_type in _REMOTE or fs_type.startswith("fuse.")


def has_hidden_writers(fs_type: str) -> bool:
    """Whether a file can have writers on this machine that are not writers of our inode: those
    below a FUSE mount, or in the upper folder of an overlay."""
    return fs_type.startswith("fuse") or fs_type == "overlay"


def fs_type_of_path(path: Path) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return fs_type_of_fd(fd)
    finally:
        os.close(fd)


def fs_type_of_fd(fd: int) -> str:
    """By mount id rather than by the longest matching path: that is right for mounts on top of
    mounts, and for files that were renamed or deleted since they were opened."""
    return _fs_type(_mount_id(fd), os.fstat(fd).st_dev)


@lru_cache(maxsize=256)
def _fs_type(mount_id: int, _device: int) -> str:
    """The device is part of the key because mount ids are used again after an unmount."""
    try:
        return parse_mounts(Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")).get(
            mount_id, UNKNOWN
        )
    except OSError:
        return UNKNOWN


def parse_mounts(mountinfo: str) -> dict[int, str]:
    """Mount id to file system type. Optional fields end with a lone '-'."""
    types = {}
    for line in mountinfo.splitlines():
        mount, found, file_system = line.partition(" - ")
        if found:
            types[int(mount.split()[0])] = file_system.split()[0]
    return types


def mount_source_of_fd(fd: int) -> str:
    """What is mounted, and which folder of it: "server:/export /"; empty where nobody tells."""
    mount_id = _mount_id(fd)
    try:
        lines = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return UNKNOWN
    for line in lines:
        mount, found, file_system = line.partition(" - ")
        if found and int(mount.split()[0]) == mount_id:
            return f"{file_system.split()[1]} {mount.split()[3]}"
    return UNKNOWN


def _mount_id(fd: int) -> int:
    try:
        info = Path(f"/proc/self/fdinfo/{fd}").read_text("ascii")
    except OSError:
        return -1
    return next((int(row.split()[1]) for row in info.splitlines() if row[:7] == "mnt_id:"), -1)
