"""One watch on each folder, kept by a thread: what the kernel tells, as StreamEvents."""

import errno
import os
import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from cefmp4.errors import InvariantError
from cefmp4.model.event import StreamEvent
from cefmp4.recording.beneath import open_folder_to_read, open_root
from cefmp4.watch import inotify_calls as kernel
from cefmp4.watch.rescans import Renames
from cefmp4.watch.selection import Selection
from cefmp4.watch.translator import PAIRING_S, Translator
from cefmp4.watch.walk import FolderQueue, Limits
from cefmp4.watch.watched_tree import Folder, WatchedTree

VISITED_AT_ONCE = 200  # folders, between two looks at the events
LONGEST_REST_S = 0.05
NEVER = float("inf")
WALK_COST = 40.0  # seconds between two walks after lost events, in CPU seconds of one


@dataclass(frozen=True, slots=True, kw_only=True)
class Callbacks:
    """All are called in a foreign thread."""

    event: Callable[[StreamEvent], None]
    overflow: Callable[[], None]
    folder_moved: Callable[[Renames], None]


@dataclass(frozen=True, slots=True)
class _Found:
    """A folder that needs its watch. `tells`: of its files, too, because no look saw them."""

    name: str
    parent: Folder | None
    tells: bool


class FolderObserver:
    """`start` and `stop` block: run them in a thread."""

    def __init__(
        self,
        root: str,
        selection: Selection,
        callbacks: Callbacks,
        limits: Limits = Limits(),  # noqa: B008  # frozen
    ) -> None:
        self._root = root
        self._selection = selection
        self._callbacks = callbacks
        self._limits = limits
        self._translator = Translator(root, selection, callbacks.event)
        self._tree = WatchedTree(limits.levels)
        self._queue = self._new_queue()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._left: dict[int, tuple[Folder, float]] = {}  # by cookie: folders on their way
        self._has_moved = False
        self._renames: Renames = []
        self._walk_again_at = NEVER
        self._no_walk_before = 0.0
        self._sweep: float | None = None  # what the thread had used when the walk began
        self._may_sweep = False
        self._place: tuple[int, int] | None = None
        self._inotify: kernel.Inotify | None = None
        self._wake = -1
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"<FolderObserver {self._root!r} {self._tree} waiting={len(self._queue)}>"

    def start(self) -> None:
        """Returns when every folder has its watch. OSError: the root cannot be watched."""
        try:
            self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._inotify = kernel.Inotify()
            self._place = _place_of(self._root)
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
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    def walk_again(self) -> None:
        """For folders without a watch, such as those that lay too deep and were moved up."""
        with self._lock:
            self._plan_walk(time.monotonic())
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    def stop(self) -> None:
        self.interrupt()
        if self._thread is not None:
            self._thread.join()
        if self._inotify is not None:
            self._inotify.close()
        if self._wake >= 0:
            os.close(self._wake)
        self._inotify, self._thread, self._wake = None, None, -1

    @property
    def is_alive(self) -> bool:
        """Not after an error, and not when the root is gone."""
        return self._thread is not None and self._thread.is_alive()

    def watched_folders(self) -> frozenset[str]:
        with self._lock:
            return frozenset(self._tree.paths())

    # The thread.

    def _run(self) -> None:
        poller = select.poll()
        poller.register(self._kernel.fd, select.POLLIN)
        poller.register(self._wake, select.POLLIN)
        while True:
            poller.poll(self._wait_s() * 1000)
            if self._stopping.is_set():
                return
            with suppress(BlockingIOError):
                os.eventfd_read(self._wake)
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
        folder_at = next((until for _, until in self._left.values()), NEVER)
        first = min(self._walk_again_at, self._translator.next_at, folder_at)
        return max(0.0, min(first - time.monotonic() + 0.001, 3600.0))

    def _step(self, now: float) -> None:
        for event in self._kernel.read():
            self._handle(event, now)
        self._translator.expire(now)
        self._expire_folders(now)
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
                self._remove(self._tree.drop_unseen())
            self._no_walk_before = now + WALK_COST * (time.thread_time() - self._sweep)
            self._sweep = None
        if self._has_moved:
            self._has_moved = False
            renames, self._renames = self._renames, []
            self._callbacks.folder_moved(renames)

    def _expire_folders(self, now: float) -> None:
        """A folder whose rename has no second half is outside now."""
        while (first := next(iter(self._left), None)) is not None and self._left[first][1] <= now:
            self._drop(self._left.pop(first)[0])
            self._has_moved = True

    @property
    def _kernel(self) -> kernel.Inotify:
        if self._inotify is None:
            raise InvariantError("the observer was not started")
        return self._inotify

    # Events.

    def _handle(self, event: kernel.RawEvent, now: float) -> None:
        if event.mask & kernel.IN_Q_OVERFLOW:
            self._lost_events(now)
            return
        folder = self._tree.by_watch(event.watch)
        if folder is None:
            return
        if event.mask & (kernel.IN_IGNORED | kernel.IN_DELETE_SELF):
            self._has_moved = self._has_moved or folder is self._tree.root
            self._drop(folder)
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
                self._left[event.cookie] = (moving, now + PAIRING_S)
            return
        if event.mask & kernel.IN_DELETE:
            self._has_moved = True
            return
        moved, _ = self._left.pop(event.cookie, (None, 0.0))
        self._has_moved = self._has_moved or moved is not None
        if not self._selection.enters(event.name):
            if moved is not None:
                self._drop(moved)
        elif moved is not None and (former := self._tree.path_of(moved)) is not None:
            self._renames.append((former, relpath))
            self._may_sweep = False  # a walk that is under way may miss what moves
            self._remove(self._tree.move(moved, event.name, parent))
        else:
            self._queue.add(relpath, _Found(event.name, parent, tells=True))

    def _lost_events(self, now: float) -> None:
        """Folders may have come and gone: all are walked through again, but not all the time."""
        self._callbacks.overflow()
        self._plan_walk(now)

    def _plan_walk(self, now: float) -> None:
        self._walk_again_at = min(self._walk_again_at, max(now, self._no_walk_before))

    # Folders.

    def _new_queue(self) -> FolderQueue[_Found]:
        return FolderQueue(self._root, self._limits)

    def _visit_some(self) -> None:
        """The root is opened for a moment only: an open folder cannot be unmounted."""
        try:
            root_fd = open_root(self._root)
        except OSError:
            self._queue = self._new_queue()
            raise
        try:
            if _place_of_fd(root_fd) == self._place:
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
            folder = self._watch(fd, found)
            if folder is not None:
                self._list(fd, f"{relpath}/" if relpath else "", folder, tells=found.tells)
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

    def _watch(self, fd: int, found: _Found) -> Folder | None:
        try:
            watch = self._kernel.add(fd)
        except OSError as error:
            if found.parent is None or error.errno not in (errno.ENOSPC, errno.EACCES):
                raise
            return None  # the next look at the folder finds out
        if self._tree.by_watch(watch) is None and len(self._tree) >= self._limits.folders:
            self._kernel.remove(watch)
            return None
        folder, dropped = self._tree.put(watch, found.name, found.parent)
        self._remove(dropped)
        return folder

    def _list(self, fd: int, prefix: str, folder: Folder, *, tells: bool) -> None:
        with suppress(OSError), os.scandir(fd) as listing:
            for entry in listing:
                relpath = prefix + entry.name
                if entry.is_dir(follow_symlinks=False):
                    if self._selection.enters(entry.name):
                        self._queue.add(relpath, _Found(entry.name, folder, tells=tells))
                elif tells:
                    self._translator.found(relpath)

    def _drop(self, folder: Folder) -> None:
        self._remove(self._tree.drop(folder))

    def _remove(self, watches: list[int]) -> None:
        for watch in watches:
            self._kernel.remove(watch)


def _place_of(path: str) -> tuple[int, int]:
    facts = os.stat(path)
    return facts.st_dev, facts.st_ino


def _place_of_fd(fd: int) -> tuple[int, int]:
    facts = os.fstat(fd)
    return facts.st_dev, facts.st_ino
