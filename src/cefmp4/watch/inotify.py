"""One watchdog observer on one folder: its events as StreamEvents, still in watchdog's threads."""

import logging
import os
import stat
import warnings
from collections.abc import Callable
from dataclasses import dataclass

from watchdog.events import (
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers.inotify import InotifyObserver

from cefmp4.model.event import EventKind, StreamEvent
from cefmp4.watch.selection import ARIA2_SUFFIX, Selection, is_being_downloaded

# Modifications, opens and reads are never asked for: with them, watchdog's own walk through some
# thousand folders overflows the queue, the overflow makes it walk again, and nothing arrives.
_WANTED_EVENTS: list[type[FileSystemEvent]] = [
    FileCreatedEvent,
    FileClosedEvent,
    FileMovedEvent,
    FileDeletedEvent,
    DirMovedEvent,
    DirDeletedEvent,
]
# watchdog tells nobody of an overflow; it only logs it.
_OVERFLOW_LOGGER = logging.getLogger("watchdog.observers.inotify_c")


@dataclass(frozen=True, slots=True, kw_only=True)
class Callbacks:
    """All are called in foreign threads."""

    event: Callable[[StreamEvent], None]
    overflow: Callable[[], None]
    folder_moved: Callable[[], None]


class FolderObserver:
    """`start` and `stop` block: run them in a thread."""

    def __init__(self, root: str, selection: Selection, callbacks: Callbacks) -> None:
        self._root = root
        self._callbacks = callbacks
        self._handler = _Translator(root, selection, callbacks)
        self._overflow = _OverflowHandler(callbacks.overflow)
        self._observer: InotifyObserver | None = None

    def start(self) -> None:
        """Returns when every folder has its watch. OSError: the root cannot be watched."""
        # watchdog sees a new folder twice as a matter of course and warns of it each time; where
        # warnings are errors, that ends its thread.
        warnings.filterwarnings("ignore", "Callback with id", RuntimeWarning)
        observer = InotifyObserver()
        _OVERFLOW_LOGGER.addHandler(self._overflow)
        if not _OVERFLOW_LOGGER.isEnabledFor(logging.WARNING):
            _OVERFLOW_LOGGER.setLevel(logging.WARNING)
        self._observer = observer
        try:
            observer.schedule(
                self._handler, self._root, recursive=True, event_filter=_WANTED_EVENTS
            )
            observer.start()
        except OSError:
            self.stop()
            raise

    def stop(self) -> None:
        _OVERFLOW_LOGGER.removeHandler(self._overflow)
        if self._observer is None:
            return
        self._observer.stop()
        if self._observer.is_alive():
            self._observer.join()
        self._observer = None

    @property
    def is_alive(self) -> bool:
        """A thread of watchdog that met an error is gone without a word."""
        if self._observer is None or not self._observer.is_alive():
            return False
        threads = [*self._observer.emitters, getattr(self._observer, "_inotify_fd", None)]
        return bool(self._observer.emitters) and all(t is None or t.is_alive() for t in threads)

    def watched_folders(self) -> frozenset[str] | None:
        """None where this version of watchdog keeps no such list. Folders that could not get a
        watch are missing here and nowhere else: watchdog swallows that error."""
        if self._observer is None:
            return None
        for emitter in self._observer.emitters:
            group = getattr(emitter, "_inotify", None)
            watches = getattr(group, "_active_callbacks_by_path", None)
            if watches is None:
                return None
            paths = (os.fsdecode(path) for path in list(watches))
            return frozenset(_relative(self._root, path) for path in paths)
        return None


class _Translator(FileSystemEventHandler):
    def __init__(self, root: str, selection: Selection, callbacks: Callbacks) -> None:
        self._root = root
        self._selection = selection
        self._callbacks = callbacks

    def dispatch(self, event: FileSystemEvent) -> None:
        source, target = os.fsdecode(event.src_path), os.fsdecode(event.dest_path)
        if isinstance(event, DirMovedEvent | DirDeletedEvent):
            # Whatever was in it has another path now, or none, without an event of its own.
            if not event.is_synthetic:
                self._callbacks.folder_moved()
        elif isinstance(event, FileMovedEvent):
            self._moved(_relative(self._root, source), _relative(self._root, target))
        else:
            self._one_name(event, _relative(self._root, source))

    def _one_name(self, event: FileSystemEvent, relpath: str) -> None:
        if isinstance(event, FileDeletedEvent):
            if relpath.endswith(ARIA2_SUFFIX):
                self._tell(EventKind.CLOSE, relpath.removesuffix(ARIA2_SUFFIX))
            else:
                self._tell(EventKind.DELETE, relpath)
            return
        is_close = isinstance(event, FileClosedEvent)
        self._tell(EventKind.CLOSE if is_close else EventKind.CREATE, relpath)

    def _moved(self, source: str, target: str) -> None:
        """A download that gets its final name is a new file; a file that gets a temporary name, or
        one that is not ours to upload, is gone."""
        if not self._selection.wants(source):
            self._tell(EventKind.CREATE, target)
        elif not self._selection.wants(target):
            self._tell(EventKind.DELETE, source)
        elif _may_be_file(self._path(target)):
            event = StreamEvent(kind=EventKind.MOVE, relpath=target, moved_from=source)
            self._callbacks.event(event)

    def _tell(self, kind: EventKind, relpath: str) -> None:
        if not self._selection.wants(relpath):
            return
        if kind is not EventKind.DELETE:
            path = self._path(relpath)
            if not _may_be_file(path) or is_being_downloaded(path):
                return
        self._callbacks.event(StreamEvent(kind=kind, relpath=relpath))

    def _path(self, relpath: str) -> str:
        return os.path.join(self._root, relpath)


class _OverflowHandler(logging.Handler):
    def __init__(self, on_overflow: Callable[[], None]) -> None:
        super().__init__(logging.WARNING)
        self._on_overflow = on_overflow

    def emit(self, record: logging.LogRecord) -> None:
        if "overflow" in record.getMessage():
            self._on_overflow()


def _relative(root: str, path: str) -> str:
    return path[len(root) :].lstrip("/")


def _may_be_file(path: str) -> bool:
    """A name that is gone again passes: the event that says so is on its way."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return True
