"""What shows which folder this is: a mark that we leave in it, or, where nothing can be written,
what its file system tells of it. A mark goes with the folder through remounts, bind mounts and
containers, and is seen by everybody who shares it."""

import errno
import hashlib
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cefmp4.model.folder import is_folder_id
from cefmp4.recording.mounts import fs_type_of_fd, mount_source_of_fd
from cefmp4.recording.stamps import birth_ns

Place = tuple[int, int]  # device and inode of a folder
ATTRIBUTE = "user.cefmp4.folder"
MARK_FILE = ".cefmp4-folder-id"

# Where statfs tells an id made of the file system's UUID; elsewhere it is made of a device number,
# which the next boot may deal out differently.
_WITH_LASTING_ID = frozenset({"ext2", "ext3", "ext4", "btrfs"})


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderLook:
    """`marks`: the one that counts first. `print`: tells this folder from all others without a
    mark; `is_print_safe`: it surely does. `is_bare`: there is nothing in it."""

    place: Place
    marks: tuple[str, ...]
    print: str
    is_print_safe: bool
    is_bare: bool


def look_at(root: str) -> FolderLook:
    """Blocking. Raises OSError where there is no such folder, or this user may not read or enter
    it."""
    fd = os.open(os.path.join(root, os.curdir), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        facts = os.fstat(fd)
        text, is_safe = _print_of(fd, facts)
        with os.scandir(fd) as listing:
            is_bare = all(entry.name.startswith(MARK_FILE) for entry in listing)
        marks = tuple(mark for mark in (_mark_file_in(fd), _attribute_of(fd)) if mark)
    finally:
        os.close(fd)
    return FolderLook(
        place=(facts.st_dev, facts.st_ino),
        marks=marks,
        print=text,
        is_print_safe=is_safe,
        is_bare=is_bare,
    )


def leave_mark(root: str, mark: str) -> str:
    """Returns the mark that the folder has now: another instance may have been faster. Empty where
    neither an attribute nor a file can be written. Blocking."""
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if found := _mark_file_in(fd):
            return found
        with suppress(OSError):  # not supported here, read-only, not our folder, or there is one
            os.setxattr(fd, ATTRIBUTE, mark.encode(), os.XATTR_CREATE)
        return _attribute_of(fd) or _leave_file(fd, mark)
    finally:
        os.close(fd)


def place_of(root: str) -> Place | None:
    """Where the folder is now, for as long as it is mounted. Blocking."""
    try:
        facts = os.stat(root)
    except OSError:
        return None
    return facts.st_dev, facts.st_ino


def place_of_fd(fd: int) -> Place:
    facts = os.fstat(fd)
    return facts.st_dev, facts.st_ino


def _leave_file(fd: int, mark: str) -> str:
    """Linked into its place when it is written, so that nobody reads half a mark."""
    draft = f"{MARK_FILE}.{secrets.token_hex(8)}"  # that nobody can have put there before
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with suppress(OSError):
        file = os.open(draft, flags, 0o644, dir_fd=fd)
        try:
            os.write(file, mark.encode())
        finally:
            os.close(file)
        try:
            os.link(draft, MARK_FILE, src_dir_fd=fd, dst_dir_fd=fd)
        except FileExistsError:
            pass  # another instance was faster
        except OSError:  # no hard links there
            os.rename(draft, MARK_FILE, src_dir_fd=fd, dst_dir_fd=fd)
        os.unlink(draft, dir_fd=fd)
    return _mark_file_in(fd)


def _mark_file_in(fd: int) -> str:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with suppress(OSError):
        file = os.open(MARK_FILE, flags, dir_fd=fd)
        try:
            return _valid(os.read(file, 100))
        finally:
            os.close(file)
    return ""


def _attribute_of(fd: int) -> str:
    try:
        return _valid(os.getxattr(fd, ATTRIBUTE))
    except OSError as error:
        if error.errno in (errno.EIO, errno.ESTALE):
            raise
        return ""


def _valid(raw: bytes) -> str:
    """Anybody who can write there may have written it."""
    text = raw.decode("ascii", "replace").strip()
    return text if is_folder_id(text) else ""


def _print_of(fd: int, facts: os.stat_result) -> tuple[str, bool]:
    """The birth of a folder tells it from nearly every other of the world. Without it only the
    source of the mount is left, which two hosts may have alike."""
    kind = fs_type_of_fd(fd)
    file_system = str(os.fstatvfs(fd).f_fsid) if kind in _WITH_LASTING_ID else kind
    birth = birth_ns(fd)
    moment = str(birth) if birth else f"{mount_source_of_fd(fd)}|{_machine()}"
    known = [file_system, str(facts.st_ino), moment]
    digest = hashlib.sha256("\0".join(known).encode("utf-8", "surrogateescape")).hexdigest()
    return f"fs-{digest[:16]}", birth != 0


def _machine() -> str:
    try:
        return Path("/etc/machine-id").read_text("ascii").strip()
    except (OSError, ValueError):
        return ""
