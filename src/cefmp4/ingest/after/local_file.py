"""What happens to the local file once its object is proven: kept, deleted or moved away. That file,
whose bytes were proven, and no other that gets its name, or its folder's name, in between."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import structlog

from cefmp4.errors import SettingsError, SourceError
from cefmp4.model.stream import FileStamp, Stream
from cefmp4.recording.beneath import folder_of, open_folder_to_read, rename_to_free
from cefmp4.recording.file import SourceFile
from cefmp4.recording.identity import holds
from cefmp4.recording.mounts import mount_id_of_fd

log = structlog.get_logger()

COPY_BYTES = 8 * 1024 * 1024  # between two looks at whether we are to stop


def check_after_upload(action: str, watched: Path) -> None:
    """Raises SettingsError where it is certain, before anything is uploaded, that nothing could be
    deleted or moved."""
    if action == "keep":
        return
    if watched.is_dir() and os.statvfs(watched).f_flag & os.ST_RDONLY:
        raise SettingsError(
            f"AFTER_UPLOAD={action}: WATCH_DIR={watched} is mounted read-only",
            hint="mount it writable (docker compose: WATCH_DIR_READ_ONLY=false) or keep files",
        )
    if action.startswith("move:"):
        target = Path(action.removeprefix("move:"))
        if target.resolve() == watched.resolve():
            raise SettingsError(
                f"AFTER_UPLOAD={action}: that is WATCH_DIR itself",
                hint="choose another folder, outside or below",
            )
        try:
            target.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise SettingsError(
                f"AFTER_UPLOAD={action}: no folder can be made there: {reason}"
            ) from None
        if not os.access(target, os.W_OK | os.X_OK):
            raise SettingsError(f"AFTER_UPLOAD={action}: the folder cannot be written")


def archive_below(action: str, watched: Path) -> str:
    """The folder that finished files are moved to, where it lies in the watched one; else empty."""
    place, top = Path(action.removeprefix("move:")).resolve(), watched.resolve()
    is_below = action.startswith("move:") and place != top and place.is_relative_to(top)
    return str(place.relative_to(top)) if is_below else ""


class LocalFilePolicy:
    """`action` is keep, delete or move:DIR. Blocking; run it in a thread. `is_written` tells of a
    descriptor whether anybody else has its file open for writing, and may be asked there."""

    def __init__(self, action: str, is_written: Callable[[int], bool] = lambda _: False) -> None:
        self._delete = action == "delete"
        self._target = action.removeprefix("move:") if action.startswith("move:") else None
        self._is_written = is_written

    @property
    def keeps(self) -> bool:
        return not self._delete and self._target is None

    def apply(
        self,
        stream: Stream,
        source: SourceFile,
        proven: FileStamp | None,
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """Only ever touches the very bytes that were proven, and none to which a writer may add: a
        recorder that pauses is proven, too. `proven`: the stamp of this very descriptor when all of
        it was read for the proof; else it is read again now, whatever its stamp says."""
        before = source.look()
        if proven is None or before.stamp != proven:
            _require_unchanged(holds(source, stream, is_stopped=is_stopped))
        look = source.look()
        _require_unchanged(stream.is_proven and look.in_place and look.stamp == before.stamp)
        with _leaving_file(source, look.stamp, stream.id, self._is_written) as file:
            if self._target is None:
                file.delete()
                log.info("local file deleted after upload", file_path=stream.relpath)
            else:
                goal = file.move_below(self._target, stream.relpath, is_stopped)
                log.info("local file moved after upload", file_path=stream.relpath, target=goal)

    def bring_back(self, root: str, stream: Stream) -> None:
        """Its name again, unless another has it now, for a file that a crash between the two steps
        of a removal left set aside. There is none, nearly always."""
        if self.keeps:
            return
        with suppress(OSError), folder_of(root, stream.relpath) as (folder, name):
            rename_to_free(folder, _aside_name(stream.id), folder, name)
            log.info("a file that was being removed is back", file_path=stream.relpath)


def _require_unchanged(condition: bool) -> None:
    if not condition:
        raise SourceError("the file changed after its upload, so it stays where it is")


def _aside_name(stream_id: str) -> str:
    """Hidden, so that nobody takes it for a recording."""
    return f".{stream_id}.leaving"


@dataclass(frozen=True, slots=True, kw_only=True)
class _LeavingFile:
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
        aside = _aside_name(self.stream_id)
        os.rename(self.name, aside, src_dir_fd=self.folder, dst_dir_fd=self.folder)
        there = os.stat(aside, dir_fd=self.folder, follow_symlinks=False)
        mine = os.fstat(self.fd)
        is_proven = (mine.st_size, mine.st_mtime_ns) == (self.stamp.size, self.stamp.mtime_ns)
        try:
            _require_unchanged(is_proven and os.path.samestat(there, mine))
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
def _leaving_file(
    source: SourceFile, stamp: FileStamp, stream_id: str, is_written: Callable[[int], bool]
) -> Iterator[_LeavingFile]:
    """With a descriptor of its own: the stream may be stopped, and close the other, meanwhile."""
    fd = source.duplicate()
    try:
        with folder_of(source.root, source.relpath) as (folder, name):
            yield _LeavingFile(
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
        _require_unchanged(count > 0)
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
