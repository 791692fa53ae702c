"""The local file behind a stream: opened once, read by offset, never written."""

import errno
import os
import stat
import threading
from dataclasses import dataclass
from typing import Self

from cefmp4.errors import SourceError
from cefmp4.model.object import FileRange
from cefmp4.model.stream import FileStamp
from cefmp4.recording.beneath import device_near, look_up, open_folder, open_root
from cefmp4.recording.stamps import birth_ns, stamp_of

# What a descriptor answers when its file was renamed or removed where our kernel does not see it:
# below a FUSE mount, or on a file server; or when the FUSE process itself ended.
_LOST = {errno.ENOENT, errno.ESTALE, errno.ENOTCONN}

_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class FileSample:
    """What the disk said at one moment. `in_place`: the name still leads to this very file;
    `is_replaced`: it leads to another one."""

    stamp: FileStamp
    in_place: bool
    is_replaced: bool = False


class SymbolicLinkError(SourceError):
    """a symbolic link: not followed"""


@dataclass(frozen=True, slots=True)
class Home:
    """Where a file was opened: device and inode of the watched folder, device of its own folder."""

    root: tuple[int, int]
    device: int


class DescriptorLostError(SourceError):
    """the open file is of no use any more: it was renamed, removed or replaced from outside"""


class SourceFile:
    """Every method blocks on the disk and belongs into a thread, except where a caller knows that
    the file system is local and the call is a plain fstat."""

    def __init__(
        self, root: str, relpath: str, fd: int, birth_ns: int, home: Home, facts: os.stat_result
    ) -> None:
        self.root = root
        self.relpath = relpath
        self.fd = fd
        self.birth_ns = birth_ns
        self.home = home
        self.is_lost = False  # until a look finds it again
        self.is_gone = False  # from its name, at the last look
        self._facts = facts  # the latest that are surely of this file
        self._changing = threading.Lock()

    def __repr__(self) -> str:
        return f"<SourceFile {self.relpath!r} fd={self.fd}>"

    @classmethod
    def open(cls, root: str, relpath: str) -> Self:
        """Raises FileNotFoundError when there is no such file, SourceError when it is no regular
        file or may not be read. No component of the path may be a symbolic link."""
        try:
            fd, home = _open(root, relpath)
        except (FileNotFoundError, NotADirectoryError):
            raise FileNotFoundError(relpath) from None
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise SymbolicLinkError from None
            raise SourceError(f"cannot read the file: {error.strerror}") from error
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode):
            os.close(fd)
            raise SourceError("it is not a regular file")
        return cls(root, relpath, fd, birth_ns(fd), home, facts)

    def close(self) -> None:
        with self._changing:
            if self.fd >= 0:
                os.close(self.fd)
                self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def renamed(self, relpath: str) -> None:
        """It was seen under that name."""
        self.relpath, self.is_gone = relpath, False

    def stamp(self) -> FileStamp:
        """Raises DescriptorLostError."""
        return stamp_of(self._ask(), self.birth_ns)

    def look(self) -> FileSample:
        """Goes on with a file whose descriptor is lost if its name still leads to it."""
        try:
            self._ask()
            is_here = self._is_at_name()
        except DescriptorLostError:
            is_here = self._open_again()
        if not is_here:
            self._require_home()
        self.is_gone = not is_here
        return FileSample(
            stamp_of(self._facts, self.birth_ns),
            in_place=is_here is True,
            is_replaced=is_here is False,
        )

    def _is_at_name(self) -> bool | None:
        """None: nothing is."""
        try:
            return os.path.samestat(look_up(self.root, self.relpath), self._facts)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _open_again(self) -> bool | None:
        """False where the name leads to another file, None where to nothing."""
        try:
            there = SourceFile.open(self.root, self.relpath)
        except FileNotFoundError:
            return None
        with there:
            return there.is_same_inode(self) and self.take_over(there)

    def _require_home(self) -> None:
        """A file that is not at its name is only gone where its file system is still there."""
        root = os.stat(self.root)
        if (root.st_dev, root.st_ino) != self.home.root:
            raise SourceError("the watched folder is not mounted, or another one is")
        if device_near(self.root, self.relpath.rpartition("/")[0]) != self.home.device:
            raise SourceError("the file system of its folder is not mounted")

    def _ask(self) -> os.stat_result:
        """What fstat says. Below a FUSE mount that may be of whatever has the former name by now,
        while reading gives the bytes of the file that was opened: these must never be mixed."""
        try:
            facts = os.fstat(self.fd)
        except OSError as error:
            if error.errno not in _LOST:
                raise
            self.is_lost = True
            raise DescriptorLostError from error
        if not os.path.samestat(facts, self._facts):
            self.is_lost = True
            raise DescriptorLostError
        self._facts, self.is_lost = facts, False
        return facts

    def is_same_inode(self, other: "SourceFile") -> bool:
        return os.path.samestat(self._facts, other._facts) and self.birth_ns == other.birth_ns

    def duplicate(self) -> int:
        """A descriptor of the caller's own, which lasts when this one is closed meanwhile."""
        with self._changing:
            return os.dup(self.fd)

    def take_over(self, other: "SourceFile") -> bool:
        """From now on this is the file that `other` has open; for whoever reads it right now, too.
        False when it was closed meanwhile."""
        with self._changing:
            if self.fd < 0:
                return False
            os.dup2(other.fd, self.fd, inheritable=False)
            self._facts, self.birth_ns = other._facts, other.birth_ns
            self.is_lost = False
        return True

    def refresh(self) -> None:
        """Opens it again, which is what makes a kernel forget the pages that it remembers of a file
        elsewhere: below a FUSE mount, or on a server, they may have been written over since. Raises
        DescriptorLostError where the name no longer leads to it."""
        if not self._open_again():
            self.is_lost = True
            raise DescriptorLostError

    def is_found_at(self, relpath: str) -> bool:
        """Whether this file left its name and has that one now. While it is open, no other file can
        get its inode."""
        try:
            there = look_up(self.root, relpath)
            return os.path.samestat(there, self._ask()) and not self.look().in_place
        except (SourceError, OSError):
            return False

    def may_be_at(self, relpath: str) -> bool:
        """Whether this very file seems to have that name as well as its own, of which it can have
        but one: a file system that remembers names for a while (FUSE, NFS) has not noticed yet."""
        try:
            there = look_up(self.root, relpath)
        except OSError:
            return False
        return there.st_nlink == 1 and os.path.samestat(there, self._facts)

    def range(self, start: int, end: int) -> FileRange:
        return FileRange(self.fd, start, end - start)

    def has_data_until(self, start: int, end: int) -> bool:
        """Whether bytes were written everywhere in [start, end): preallocated files and torrents
        have their final size long before their bytes."""
        try:
            return os.lseek(self.fd, start, os.SEEK_HOLE) >= end
        except OSError:  # past the end of a file that shrank meanwhile
            return False


def _open(root: str, relpath: str) -> tuple[int, Home]:
    folder, _, name = relpath.rpartition("/")
    top = open_root(root)
    try:
        place = os.fstat(top)
        folder_fd = open_folder(top, folder)
    finally:
        os.close(top)
    try:
        home = Home((place.st_dev, place.st_ino), os.fstat(folder_fd).st_dev)
        return os.open(name, _OPEN_FLAGS, dir_fd=folder_fd), home
    finally:
        os.close(folder_fd)
