"""A full look at the watched folder, and what two looks tell about the time between them."""

import os
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass, field

from cefmp4.model.event import EventKind, StreamEvent
from cefmp4.model.stream import FileStamp
from cefmp4.recording.beneath import open_folder_to_read, open_root
from cefmp4.watch.downloads import ARIA2_SUFFIX, is_control_of, stands_still
from cefmp4.watch.folder_marks import Place, place_of
from cefmp4.watch.rescans import Renames
from cefmp4.watch.selection import Selection
from cefmp4.watch.walk import MOST_FOLDERS, FolderQueue, LeftOut

Watch = Callable[[int, str], bool]


@dataclass(slots=True, kw_only=True)
class ScanResult:
    """`entries` are the wanted files. What lies below `unreadable` folders, and below those that
    were left out, is unknown, and so is everything where the root is missing or the scan was
    stopped."""

    entries: dict[str, FileStamp] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)  # those that were read; the root is ""
    unreadable: set[str] = field(default_factory=set)
    downloading: set[str] = field(default_factory=set)  # wanted names that aria2 is still filling
    standing_still: set[str] = field(default_factory=set)  # of these, where nothing happened long
    not_downloading: set[str] = field(default_factory=set)  # what has a control file's name is none
    unwatched: set[str] = field(default_factory=set)  # of `folders`: no event tells of them
    mounts: set[str] = field(default_factory=set)  # folders where another file system begins
    left_out: LeftOut = field(default_factory=LeftOut)
    root_missing: bool = False
    was_stopped: bool = False

    @property
    def has_hidden(self) -> bool:
        return bool(self.unreadable or self.left_out)

    @property
    def is_whole(self) -> bool:
        """Whether the absence of a file means anything at all."""
        return not (self.root_missing or self.was_stopped)

    def lacks(self, relpath: str) -> bool:
        """Whether a wanted file of that name is surely not there."""
        if relpath in self.entries or relpath in self.downloading:
            return False
        return not any(map(self._hides, _folders_above(relpath)))

    def _hides(self, folder: str) -> bool:
        """Whether the folder may be there, with files that were not seen."""
        if folder in self.unreadable:
            return True
        is_beside_left_out = folder.rpartition("/")[0] in self.left_out.parents
        return is_beside_left_out and folder not in self.folders


def scan(
    root: str,
    selection: Selection,
    stop: Callable[[], bool] = lambda: False,
    *,
    expected_mounts: frozenset[str] = frozenset(),
    place: Place | None = None,
    most_folders: int = MOST_FOLDERS,
    watch: Watch | None = None,
) -> ScanResult:
    """Blocking: run it in a thread. Follows no symlinks and sees regular files only.

    `expected_mounts`: folders that were mount points in an earlier look. `place`: that of the root,
    where any other is not the one that is meant. `watch` is called with each folder before it is
    looked at, and answers whether events will tell of it."""
    try:
        parent_device = os.stat(os.path.join(root, os.pardir)).st_dev
        root_fd = open_root(root)
    except OSError:
        return ScanResult(root_missing=True)
    walk = _Walk(root_fd, selection, expected_mounts, FolderQueue(root, most_folders), watch)
    try:
        facts = os.fstat(root_fd)
        before = facts.st_dev, facts.st_ino
        if place not in (None, before) or not walk.is_mounted("", facts.st_dev, parent_device):
            return ScanResult(root_missing=True)
        walk.run(parent_device, stop)
    finally:
        os.close(root_fd)
    result = walk.result
    # Some mount points are removed with what was mounted there.
    result.unreadable |= expected_mounts - result.folders - result.mounts - {""}
    result.left_out = walk.queue.left_out
    if not result.was_stopped:
        # An unmount in the middle makes every folder below look deleted.
        result.root_missing = "" not in result.folders or place_of(root) != before
    return result


@dataclass(slots=True)
class _Walk:
    root_fd: int
    selection: Selection
    expected_mounts: frozenset[str]
    queue: FolderQueue[int]  # with the device of the folder above
    watch: Watch | None
    result: ScanResult = field(default_factory=ScanResult)

    def run(self, device: int, stop: Callable[[], bool]) -> None:
        """Not recursive: hostile trees are deeper than a call stack."""
        self.queue.add("", device)
        while (next_one := self.queue.take()) is not None:
            if stop():
                self.result.was_stopped = True
                return
            try:
                self._visit(*next_one)
            except (FileNotFoundError, NotADirectoryError):
                continue  # it went while we looked; where it went to is seen there or next time
            except OSError:
                # Also where names can be listed but files not be looked at: what was noted of this
                # folder so far is right, and the rest is unknown rather than gone.
                self.result.unreadable.add(next_one[0])

    def _visit(self, relpath: str, parent_device: int) -> None:
        fd = open_folder_to_read(self.root_fd, relpath)
        try:
            device = os.fstat(fd).st_dev
            if relpath and not self.is_mounted(relpath, device, parent_device):
                self.result.unreadable.add(relpath)
                return
            if self.watch is not None and not self.watch(fd, relpath):
                self.result.unwatched.add(relpath)
            self._read_folder(fd, f"{relpath}/" if relpath else "", device)
        finally:
            os.close(fd)
        self.result.folders.add(relpath)

    def is_mounted(self, relpath: str, device: int, parent_device: int) -> bool:
        """A mount point without its file system is an empty folder that says nothing about the
        files we knew in it."""
        if device != parent_device:
            self.result.mounts.add(relpath)
        return device != parent_device or relpath not in self.expected_mounts

    def _read_folder(self, fd: int, prefix: str, device: int) -> None:
        """Notes the files of one folder, and which folders in it are to be visited."""
        control_files: list[str] = []
        wants = self.selection.wants
        with os.scandir(fd) as listing:
            for entry in listing:
                name = entry.name
                relpath = prefix + name
                if wants(relpath):
                    if entry.is_file(follow_symlinks=False):
                        self._note(entry, relpath)
                        continue
                elif name.endswith(ARIA2_SUFFIX):
                    control_files.append(relpath)
                if entry.is_dir(follow_symlinks=False) and self.selection.enters(name):
                    self.queue.add(relpath, device)
        for control_file in control_files:
            target = control_file.removesuffix(ARIA2_SUFFIX)
            if target in self.result.entries:
                with suppress(FileNotFoundError):  # either is gone again
                    self._note_download(fd, target)

    def _note(self, entry: os.DirEntry[str], relpath: str) -> None:
        with suppress(FileNotFoundError):
            facts = entry.stat(follow_symlinks=False)
            self.result.entries[relpath] = FileStamp(
                facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns
            )

    def _note_download(self, fd: int, relpath: str) -> None:
        name = relpath.rpartition("/")[2]
        file = os.stat(name, dir_fd=fd, follow_symlinks=False)
        control = os.stat(name + ARIA2_SUFFIX, dir_fd=fd, follow_symlinks=False)
        if not is_control_of(control, file):
            self.result.not_downloading.add(relpath)
            return
        del self.result.entries[relpath]
        self.result.downloading.add(relpath)
        if stands_still(control, file):
            self.result.standing_still.add(relpath)


def _folders_above(relpath: str) -> Iterator[str]:
    at = relpath.find("/")
    while at >= 0:
        yield relpath[:at]
        at = relpath.find("/", at + 1)


def compare(
    previous: Mapping[str, FileStamp],
    current: ScanResult,
    told: Set[str] = frozenset(),
    renames: Renames = (),
) -> list[StreamEvent]:
    """Renames first, in an order in which no name is taken before its former file has left it;
    then what is new or changed, then what is gone.

    `told`: names that only events told of. `renames`: of folders, which took such names along."""
    if not current.is_whole:
        return []
    entries = current.entries
    gone: dict[str, FileStamp] = {}
    replaced: dict[str, FileStamp] = {}
    for relpath, stamp in previous.items():
        now = entries.get(relpath)
        if now is None:
            if current.lacks(relpath):
                gone[relpath] = stamp
        elif now.inode != stamp.inode:
            replaced[relpath] = stamp
    moves = _find_moves({**gone, **replaced}, previous, entries)
    left = [path for path in told if path not in previous and current.lacks(path)]
    for path in left:
        target = _renamed(path, renames)
        if target in entries and target not in previous:
            moves.setdefault(target, path)
    sources = set(moves.values())
    events = list(_in_order(moves))
    for relpath, stamp in entries.items():
        before = previous.get(relpath)
        if relpath in moves or (before is not None and before.is_unchanged(stamp)):
            continue
        is_new = before is None or relpath in sources
        kind = EventKind.CREATE if is_new else EventKind.WRITE
        events.append(StreamEvent(kind=kind, relpath=relpath))
    events.extend(
        StreamEvent(kind=EventKind.DELETE, relpath=relpath)
        for relpath in (*gone, *left)
        if relpath not in sources
    )
    return events


def _find_moves(
    left: dict[str, FileStamp], previous: Mapping[str, FileStamp], entries: dict[str, FileStamp]
) -> dict[str, str]:
    """New name to former name. Inode numbers are used again at once, so size and modification
    time must be those of the former name too."""
    former = {(stamp.inode, stamp.size, stamp.mtime_ns): name for name, stamp in left.items()}
    moves: dict[str, str] = {}
    if not former:
        return moves
    for relpath, stamp in entries.items():
        before = previous.get(relpath)
        if before is None or before.inode != stamp.inode:
            source = former.pop((stamp.inode, stamp.size, stamp.mtime_ns), None)
            if source is not None:
                moves[relpath] = source
    return moves


def _renamed(path: str, renames: Renames) -> str:
    for former, now in renames:
        if path.startswith(f"{former}/"):
            path = now + path[len(former) :]
    return path


def _in_order(moves: dict[str, str]) -> Iterator[StreamEvent]:
    """A name that is itself moved away is moved away first. Names that were exchanged have no such
    order; for them the files are only reported as changed."""
    waiting = dict(moves)
    sources = {source: name for name, source in moves.items()}
    ready = [name for name in moves if name not in sources]
    while ready:
        name = ready.pop()
        source = waiting.pop(name)
        yield StreamEvent(kind=EventKind.MOVE, relpath=name, moved_from=source)
        if source in waiting:
            ready.append(source)
    for name in waiting:
        yield StreamEvent(kind=EventKind.WRITE, relpath=name)
