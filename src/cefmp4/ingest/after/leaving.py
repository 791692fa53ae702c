"""Takes one file out of its folder, deleted or moved away: the very file whose bytes were proven,
and no other that gets its name, or its folder's name, in between."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import PurePosixPath

from cefmp4.errors import SourceError
from cefmp4.model.stream import FileStamp
from cefmp4.recording.beneath import folder_of, open_folder_to_read, rename_to_free
from cefmp4.recording.file import SourceFile
from cefmp4.recording.mounts import mount_id_of_fd

COPY_BYTES = 8 * 1024 * 1024  # between two looks at whether we are to stop


def require_unchanged(condition: bool) -> None:
    if not condition:
        raise SourceError("the file changed after its upload, so it stays where it is")


def aside_name(stream_id: str) -> str:
    """Hidden, so that nobody takes it for a recording."""
    return f".{stream_id}.leaving"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeavingFile:
    """`folder` is the open folder in which the file has its name, `fd` a descriptor of ours."""

    folder: int
    name: str
    fd: int
    stamp: FileStamp
    stream_id: str
    is_written: Callable[[int], bool]  # whether somebody has the file of a descriptor open to write

    def delete(self) -> None:
        os.unlink(self._set_aside(), dir_fd=self.folder)

    def move_below(self, target: str, relpath: str, is_stopped: Callable[[], bool]) -> str:
        """Overwrites nothing; returns where it went. To another file system it is copied first,
        under a passing name: a disk that gets full on the way leaves no torn recording there."""
        path = PurePosixPath(relpath)
        other = path.with_name(f"{path.stem}~{self.stream_id}{path.suffix}")
        os.makedirs(target, exist_ok=True)
        try:
            with folder_of(target, relpath, makes=True) as (goal_folder, _):
                goals = path.name, other.name
                goal = self._move(goal_folder, goals) or self._copy(goal_folder, goals, is_stopped)
        except NotADirectoryError:
            raise SourceError(f"there is a file or a link on the way to {target}/{path}") from None
        return f"{target}/{path.with_name(goal)}"

    def _set_aside(self) -> str:
        """No call removes a file by its inode, so it gets a name that nobody else uses, in the same
        folder, and is compared under that. Whatever had its name by then gets it back. Compared
        under its own name, another file that is renamed over it before the removal were lost; and
        whoever opens that name from now on has another file. A crash in between leaves it under
        that name, see `LocalFilePolicy.bring_back`."""
        aside = aside_name(self.stream_id)
        os.rename(self.name, aside, src_dir_fd=self.folder, dst_dir_fd=self.folder)
        there = os.stat(aside, dir_fd=self.folder, follow_symlinks=False)
        mine = os.fstat(self.fd)
        is_proven = (mine.st_size, mine.st_mtime_ns) == (self.stamp.size, self.stamp.mtime_ns)
        try:
            require_unchanged(is_proven and os.path.samestat(there, mine))
            if self.is_written(self.fd):
                raise SourceError("somebody still has the file open for writing")
        except BaseException:
            self._put_back(aside)
            raise
        return aside

    def _put_back(self, aside: str) -> None:
        try:
            rename_to_free(self.folder, aside, self.folder, self.name)
        except FileExistsError:
            raise SourceError(f"another file took its name, so it is called {aside} now") from None

    def _move(self, goal_folder: int, goals: tuple[str, ...]) -> str:
        """Empty where it must be copied."""
        # A rename works within one mount: of two bind mounts of one disk, the devices are equal.
        if mount_id_of_fd(self.folder) != mount_id_of_fd(goal_folder):
            return ""
        aside = self._set_aside()
        try:
            return _rename_to_one(self.folder, aside, goal_folder, goals)
        except BaseException as error:
            self._put_back(aside)
            if isinstance(error, OSError) and error.errno == errno.EXDEV:
                return ""  # within one mount, too, where quotas differ
            raise

    def _copy(
        self, goal_folder: int, goals: tuple[str, ...], is_stopped: Callable[[], bool]
    ) -> str:
        """From the descriptor, never from the name. On the other disk before it goes from here."""
        passing = f".{self.stream_id}.part"
        with suppress(FileNotFoundError):  # of a crash, or planted
            os.unlink(passing, dir_fd=goal_folder)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            copy = os.open(passing, flags, 0o600, dir_fd=goal_folder)
            try:
                _copy_bytes(self.fd, copy, self.stamp.size, is_stopped)
                _copy_facts(self.fd, copy)
                os.fsync(copy)
            finally:
                os.close(copy)
            aside = self._set_aside()
            try:
                goal = _rename_to_one(goal_folder, passing, goal_folder, goals)
            except BaseException:
                self._put_back(aside)
                raise
        finally:
            with suppress(FileNotFoundError):
                os.unlink(passing, dir_fd=goal_folder)
        _sync(goal_folder)
        os.unlink(aside, dir_fd=self.folder)
        return goal


@contextmanager
def leaving_file(
    source: SourceFile, stamp: FileStamp, stream_id: str, is_written: Callable[[int], bool]
) -> Iterator[LeavingFile]:
    """With a descriptor of its own: the stream may be stopped, and close the other, meanwhile."""
    fd = source.duplicate()
    try:
        with folder_of(source.root, source.relpath) as (folder, name):
            yield LeavingFile(
                folder=folder,
                name=name,
                fd=fd,
                stamp=stamp,
                stream_id=stream_id,
                is_written=is_written,
            )
    finally:
        os.close(fd)


def _rename_to_one(folder: int, name: str, to_folder: int, goals: tuple[str, ...]) -> str:
    for goal in goals:
        try:
            rename_to_free(folder, name, to_folder, goal)
        except FileExistsError:
            continue
        return goal
    raise SourceError(f"there are files named {' and '.join(goals)} already")


def _copy_bytes(source: int, copy: int, size: int, is_stopped: Callable[[], bool]) -> None:
    done = 0
    while done < size:
        if is_stopped():
            raise SourceError("we stop: it is moved after the next start")
        count = os.sendfile(copy, source, done, min(COPY_BYTES, size - done))
        require_unchanged(count > 0)
        done += count


def _copy_facts(source: int, copy: int) -> None:
    """Times, permissions, attributes. Not what would give the copy, which is ours, rights that its
    writer never had: the set-id bits, and attributes that are the system's."""
    facts = os.fstat(source)
    with suppress(OSError):  # not supported here, or there
        for name in os.listxattr(source):
            if name.startswith(("user.", "system.posix_acl_")):
                os.setxattr(copy, name, os.getxattr(source, name))
    os.fchmod(copy, stat.S_IMODE(facts.st_mode) & 0o777)
    os.utime(copy, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def _sync(folder: int) -> None:
    """What was opened for looking up names cannot be synced itself."""
    fd = open_folder_to_read(folder, "")
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
