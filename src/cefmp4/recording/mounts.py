"""What kind of file system lies below a path or an open file, and what it can be trusted with."""

import os
from functools import lru_cache
from pathlib import Path

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
    """Empty where nobody tells."""
    return _mount_of_fd(fd)[0]


def mount_source_of_fd(fd: int) -> str:
    """What is mounted, and which folder of it: "server:/export /"; empty where nobody tells."""
    return _mount_of_fd(fd)[1]


def _mount_of_fd(fd: int) -> tuple[str, str]:
    """By mount id rather than by the longest matching path: that is right for mounts on top of
    mounts, and for files that were renamed or deleted since they were opened."""
    return _mount(mount_id_of_fd(fd), os.fstat(fd).st_dev)


@lru_cache(maxsize=256)
def _mount(mount_id: int, _device: int) -> tuple[str, str]:
    """The device is part of the key because mount ids are used again after an unmount."""
    try:
        mountinfo = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")
    except OSError:
        return "", ""
    return parse_mounts(mountinfo).get(mount_id, ("", ""))


def parse_mounts(mountinfo: str) -> dict[int, tuple[str, str]]:
    """Of each mount id the file system type and the source. Optional fields end with a lone '-'."""
    mounts = {}
    for line in mountinfo.splitlines():
        mount, found, file_system = line.partition(" - ")
        if found:
            number, _, _, folder, *_ = mount.split()
            fs_type, source, *_ = file_system.split()
            mounts[int(number)] = fs_type, f"{source} {folder}"
    return mounts


def mount_id_of_fd(fd: int) -> int:
    try:
        info = Path(f"/proc/self/fdinfo/{fd}").read_text("ascii")
    except OSError:
        return -1
    return next((int(row.split()[1]) for row in info.splitlines() if row[:7] == "mnt_id:"), -1)
