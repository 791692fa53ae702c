"""One watch on each folder, kept by a thread: what the kernel tells, as StreamEvents."""

import errno
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from cefmp4.model.event import EventKind, StreamEvent
from cefmp4.recording.beneath import open_folder_to_read, open_root
from cefmp4.watch import inotify_calls as kernel
from cefmp4.watch.folder_marks import Place, place_of
from cefmp4.watch.rescans import Renames
from cefmp4.watch.selection import Selection
from cefmp4.watch.translator import Halves, Translator
from cefmp4.watch.walk import MOST_FOLDERS, FolderQueue
from cefmp4.watch.watched_tree import Folder, WatchedTree

VISITED_AT_ONCE = 200  # folders, between two looks at the events
LONGEST_REST_S = 0.05
NEVER = float("inf")
WALK_COST = 40.0  # seconds between two walks after lost events, in CPU seconds of one


@dataclass(frozen=True, slots=True)
class _Found:
    """A folder that needs its watch. `tells`: of its files, too, because no look saw them."""

    name: str
    parent: Folder | None
    tells: bool


class FolderObserver:
    """`start` and `stop` block: run them in a thread. What it calls is called in a foreign one."""

    def __init__(
        self,
        root: str,
        selection: Selection,
        *,
        tell: Callable[[StreamEvent], None],
        overflow: Callable[[], None],
        folder_moved: Callable[[Renames], None],
        most_folders: int = MOST_FOLDERS,
    ) -> None:
        self._root = root
        self._selection = selection
        self._overflow = overflow
        self._folder_moved = folder_moved
        self._most_folders = most_folders
        self._kernel = kernel.Inotify()
        self._translator = Translator(root, selection, tell)
        self._tree = WatchedTree(self._kernel, most_folders)
        self._queue = self._new_queue()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._left: Halves[Folder] = Halves()
        self._has_moved = False
        self._renames: list[tuple[str, str]] = []
        self._walk_again_at = NEVER
        self._no_walk_before = 0.0
        self._sweep: float | None = None  # what the thread had used when the walk began
        self._may_sweep = False
        self._place: Place | None = None
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"<FolderObserver {self._root!r} {self._tree} waiting={len(self._queue)}>"

    def start(self) -> None:
        """Returns when every folder has its watch. OSError: the root cannot be watched."""
        try:
            self._kernel.open()
            self._place = place_of(self._root)
            self._queue.add("", _Found("", None, tells=False))
            while self._queue and not self._stopping.is_set():
                self._visit_some()
        except OSError:
            self.stop()
            raise
        self._thread = threading.Thread(target=self._run, name="inotify", daemon=True)
        self._thread.start()

    def interrupt(self) -> None:
        """Makes `start` return early, and the thread end."""
        self._stopping.set()
        self._kernel.wake()

    def walk_again(self) -> None:
        """For folders without a watch, such as those that lay too deep and were moved up."""
        with self._lock:
            self._plan_walk(time.monotonic())
        self._kernel.wake()

    def stop(self) -> None:
        self.interrupt()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._kernel.close()

    @property
    def is_alive(self) -> bool:
        """Not after an error, and not when the root is gone."""
        return self._thread is not None and self._thread.is_alive()

    def watched_folders(self) -> frozenset[str]:
        with self._lock:
            return frozenset(self._tree.paths())

    # The thread.

    def _run(self) -> None:
        while True:
            self._kernel.wait(self._wait_s())
            if self._stopping.is_set():
                return
            began = time.thread_time()
            with self._lock:
                self._step(time.monotonic())
                if self._tree.root is None:
                    return
            # Whoever floods us with events gets half of a core, not all of the interpreter; the
            # kernel drops what is too much, and says so.
            self._stopping.wait(min(LONGEST_REST_S, time.thread_time() - began))

    def _wait_s(self) -> float:
        if self._queue:
            return 0
        first = min(self._walk_again_at, self._translator.next_at, self._left.next_at)
        return max(0.0, min(first - time.monotonic() + 0.001, 3600.0))

    def _step(self, now: float) -> None:
        for event in self._kernel.read():
            self._handle(event, now)
        self._translator.expire(now)
        for folder in self._left.pop_overdue(now):
            self._tree.drop(folder)
            self._has_moved = True
        if now >= self._walk_again_at:
            self._walk_again_at = NEVER
            self._sweep, self._may_sweep = time.thread_time(), True
            self._tree.begin_generation()
            self._queue.add("", _Found("", None, tells=False))
        if self._queue:
            with suppress(OSError):  # the root is gone or closed to us: the Watcher looks after it
                self._visit_some()
        if self._sweep is not None and not self._queue:
            if self._may_sweep:
                self._tree.drop_unseen()
            self._no_walk_before = now + WALK_COST * (time.thread_time() - self._sweep)
            self._sweep = None
        if self._has_moved:
            self._has_moved = False
            renames, self._renames = self._renames, []
            self._folder_moved(renames)

    # Events.

    def _handle(self, event: kernel.RawEvent, now: float) -> None:
        if event.mask & kernel.IN_Q_OVERFLOW:
            # Folders may have come and gone: all are walked through again, but not all the time.
            self._overflow()
            self._plan_walk(now)
            return
        folder = self._tree.by_watch(event.watch)
        if folder is None:
            return
        if event.mask & (kernel.IN_IGNORED | kernel.IN_DELETE_SELF):
            self._has_moved = self._has_moved or folder is self._tree.root
            self._tree.drop(folder)
            return
        path = self._tree.path_of(folder)
        if path is None:
            return
        relpath = f"{path}/{event.name}" if path else event.name
        if event.is_folder:
            self._take_folder(event, folder, relpath, now)
        else:
            self._translator.take(event, relpath, now)

    def _take_folder(
        self, event: kernel.RawEvent, parent: Folder, relpath: str, now: float
    ) -> None:
        """Whatever is in a folder that moves or goes has another path now, or none, without an
        event of its own."""
        if event.mask & kernel.IN_MOVED_FROM:
            if (moving := parent.below.get(event.name)) is not None:
                self._left.put(event.cookie, moving, now)
            return
        if event.mask & kernel.IN_DELETE:
            self._has_moved = True
            return
        moved = self._left.pop(event.cookie)
        self._has_moved = self._has_moved or moved is not None
        if not self._selection.enters(event.name):
            if moved is not None:
                self._tree.drop(moved)
        elif moved is not None and (former := self._tree.path_of(moved)) is not None:
            self._renames.append((former, relpath))
            self._may_sweep = False  # a walk that is under way may miss what moves
            self._tree.move(moved, event.name, parent)
        else:
            self._queue.add(relpath, _Found(event.name, parent, tells=True))

    def _plan_walk(self, now: float) -> None:
        self._walk_again_at = min(self._walk_again_at, max(now, self._no_walk_before))

    # Folders.

    def _new_queue(self) -> FolderQueue[_Found]:
        return FolderQueue(self._root, self._most_folders)

    def _visit_some(self) -> None:
        """The root is opened for a moment only: an open folder cannot be unmounted."""
        try:
            root_fd = open_root(self._root)
        except OSError:
            self._queue = self._new_queue()
            raise
        try:
            facts = os.fstat(root_fd)
            if (facts.st_dev, facts.st_ino) == self._place:
                for _ in range(VISITED_AT_ONCE):
                    if (found := self._queue.take()) is None:
                        break
                    self._visit(root_fd, *found)
            else:
                self._queue = self._new_queue()
        finally:
            os.close(root_fd)
        if not self._queue:
            self._queue = self._new_queue()

    def _visit(self, root_fd: int, relpath: str, found: _Found) -> None:
        """The watch comes before the look: what appears in between is told twice, not never."""
        if found.parent is not None and not self._is_still_at(found, relpath):
            return
        try:
            fd = open_folder_to_read(root_fd, relpath)
        except OSError:
            if found.parent is None:
                raise
            return  # gone, or closed to us, which the next look tells
        try:
            folder = self._tree.watch(fd, found.name, found.parent)
            if folder is not None:
                self._list(fd, f"{relpath}/" if relpath else "", folder, tells=found.tells)
        except OSError as error:
            if found.parent is None or error.errno not in (errno.ENOSPC, errno.EACCES):
                raise
            # The next look at the folder finds out.
        finally:
            os.close(fd)

    def _is_still_at(self, found: _Found, relpath: str) -> bool:
        """Where the folder above has moved meanwhile, its new place is tried later."""
        assert found.parent is not None
        above = self._tree.path_of(found.parent)
        if above == relpath.rpartition("/")[0]:
            return True
        if above is not None:
            self._queue.add(f"{above}/{found.name}" if above else found.name, found)
        return False

    def _list(self, fd: int, prefix: str, folder: Folder, *, tells: bool) -> None:
        with suppress(OSError), os.scandir(fd) as listing:
            for entry in listing:
                relpath = prefix + entry.name
                if entry.is_dir(follow_symlinks=False):
                    if self._selection.enters(entry.name):
                        self._queue.add(relpath, _Found(entry.name, folder, tells=tells))
                elif tells:
                    self._translator.tell(EventKind.CREATE, relpath)
