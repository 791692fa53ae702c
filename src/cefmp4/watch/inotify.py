"""One watch on each folder, kept by a thread: what the kernel tells, as StreamEvents."""

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from cefmp4.model.event import EventKind, StreamEvent
from cefmp4.recording.beneath import open_folder_to_read, open_root
from cefmp4.watch import inotify_calls as kernel
from cefmp4.watch.folder_marks import Place, place_of_fd
from cefmp4.watch.rescans import Renames
from cefmp4.watch.selection import Selection
from cefmp4.watch.translator import Halves, Translator
from cefmp4.watch.walk import MOST_FOLDERS, FolderQueue
from cefmp4.watch.watched_tree import Folder, WatchedTree

VISITED_AT_ONCE = 200  # folders, between two looks at the events
LONGEST_REST_S = 0.05


class FolderObserver:
    """Watches the folders that a look shows it, and by itself those that appear. `start` and `stop`
    block: run them in a thread. What it calls is called in a foreign one."""

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
        self._may_sweep = False
        self.place: Place | None = None  # of the root that it watches
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"<FolderObserver {self._root!r} {self._tree} waiting={len(self._queue)}>"

    def start(self) -> None:
        """Watches the root. Raises OSError where it cannot be watched."""
        try:
            self._kernel.open()
            root_fd = open_root(self._root)
            try:
                self.place = place_of_fd(root_fd)
                self._tree.watch(root_fd, "", None)
            finally:
                os.close(root_fd)
        except OSError:
            self.stop()
            raise
        self._thread = threading.Thread(target=self._run, name="inotify", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._kernel.wake()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        with self._lock:
            self._kernel.close()

    @property
    def is_alive(self) -> bool:
        """Not after an error, and not when the root is gone."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def is_full(self) -> bool:
        return len(self._tree) >= self._most_folders

    # A look, in its thread.

    def begin_look(self) -> None:
        with self._lock:
            self._tree.generation += 1
            self._may_sweep = True

    def watch(self, fd: int, relpath: str) -> bool:
        """Of each folder before it is looked at: what appears in between is told twice, not never.
        False where it is not watched."""
        if not relpath:
            return True
        above, _, name = relpath.rpartition("/")
        with self._lock, suppress(OSError):
            parent = self._tree.at(above)
            return parent is not None and self._tree.watch(fd, name, parent) is not None
        return False

    def end_look(self) -> None:
        """It was at everything: what it did not see is outside, or gone without an event."""
        with self._lock:
            if self._may_sweep and not self._queue:
                self._tree.drop_unseen()

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
        first = min(self._translator.next_at, self._left.next_at)
        return max(0.0, min(first - time.monotonic() + 0.001, 3600.0))

    def _step(self, now: float) -> None:
        for event in self._kernel.read():
            self._handle(event, now)
        self._translator.expire(now)
        for folder in self._left.pop_overdue(now):
            self._tree.drop(folder)
            self._has_moved = True
        if self._queue:
            with suppress(OSError):  # the root is gone or closed to us: the Watcher looks after it
                self._visit_some()
        if self._has_moved:
            self._has_moved = False
            renames, self._renames = self._renames, []
            self._folder_moved(renames)

    # Events.

    def _handle(self, event: kernel.RawEvent, now: float) -> None:
        if event.mask & kernel.IN_Q_OVERFLOW:
            self._overflow()
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
        self._has_moved = self._has_moved or not event.mask & kernel.IN_CREATE
        if event.mask & kernel.IN_DELETE:
            return
        moved = self._left.pop(event.cookie)
        if not self._selection.enters(event.name):
            if moved is not None:
                self._tree.drop(moved)
        elif moved is not None and (former := self._tree.path_of(moved)) is not None:
            self._renames.append((former, relpath))
            self._may_sweep = False  # a look that is under way may miss what moves
            self._tree.move(moved, event.name, parent)
        else:
            self._queue.add(relpath, parent)

    # Folders that appear.

    def _new_queue(self) -> FolderQueue[Folder]:
        """With the folder above."""
        return FolderQueue(self._root, self._most_folders)

    def _visit_some(self) -> None:
        """The root is opened for a moment only: an open folder cannot be unmounted."""
        try:
            root_fd = open_root(self._root)
        except OSError:
            self._queue = self._new_queue()
            raise
        try:
            if place_of_fd(root_fd) == self.place:
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

    def _visit(self, root_fd: int, relpath: str, parent: Folder) -> None:
        above, _, name = relpath.rpartition("/")
        place = self._tree.path_of(parent)
        if place != above:  # it has moved meanwhile: its new place is tried later
            if place is not None:
                self._queue.add(f"{place}/{name}" if place else name, parent)
            return
        with suppress(OSError):  # gone, closed to us, or no watch is left: the next look tells
            fd = open_folder_to_read(root_fd, relpath)
            try:
                folder = self._tree.watch(fd, name, parent)
                if folder is not None:
                    self._list(fd, relpath, folder)
            finally:
                os.close(fd)

    def _list(self, fd: int, relpath: str, folder: Folder) -> None:
        """Tells of the files, too: no look saw them."""
        with os.scandir(fd) as listing:
            for entry in listing:
                path = f"{relpath}/{entry.name}"
                if not entry.is_dir(follow_symlinks=False):
                    self._translator.tell(EventKind.CREATE, path)
                elif self._selection.enters(entry.name):
                    self._queue.add(path, folder)
