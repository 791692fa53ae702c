"""What the kernel tells of files, as StreamEvents of those that are wanted."""

import os
import stat
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from cefmp4.model.event import EventKind, StreamEvent
from cefmp4.watch import inotify_calls as kernel
from cefmp4.watch.downloads import ARIA2_SUFFIX, is_being_downloaded
from cefmp4.watch.selection import Selection

PAIRING_S = 0.5  # in which the second half of a rename comes, if it does

T = TypeVar("T")


class Halves(Generic[T]):
    """The first halves of renames, by the cookie that both have. Where the second does not come in
    time, what was renamed is outside now."""

    def __init__(self) -> None:
        self._by_cookie: dict[int, tuple[T, float]] = {}

    @property
    def next_at(self) -> float:
        """When one is overdue."""
        return next((until for _, until in self._by_cookie.values()), float("inf"))

    def put(self, cookie: int, moving: T, now: float) -> None:
        self._by_cookie[cookie] = (moving, now + PAIRING_S)

    def pop(self, cookie: int) -> T | None:
        moving, _ = self._by_cookie.pop(cookie, (None, 0.0))
        return moving

    def pop_overdue(self, now: float) -> Iterator[T]:
        while self.next_at <= now:
            yield self._by_cookie.pop(next(iter(self._by_cookie)))[0]


class Translator:
    def __init__(
        self, root: str, selection: Selection, tell: Callable[[StreamEvent], None]
    ) -> None:
        self._root = root
        self._selection = selection
        self._pass_on = tell
        self._left: Halves[str] = Halves()
        self._cookies: dict[str, int] = {}

    @property
    def next_at(self) -> float:
        """When `expire` must be called."""
        return self._left.next_at

    def take(self, event: kernel.RawEvent, relpath: str, now: float) -> None:
        if event.mask & kernel.IN_MOVED_TO and (source := self._left.pop(event.cookie)) is not None:
            del self._cookies[source]
            self._moved(source, relpath)
            return
        if (cookie := self._cookies.pop(relpath, None)) is not None:
            self._left.pop(cookie)
            self._deleted(relpath)  # something new has its name: that it went comes first
        if event.mask & kernel.IN_MOVED_FROM:
            self._left.put(event.cookie, relpath, now)
            self._cookies[relpath] = event.cookie
        elif event.mask & kernel.IN_DELETE:
            self._deleted(relpath)
        else:
            is_close = bool(event.mask & kernel.IN_CLOSE_WRITE)
            self.tell(EventKind.CLOSE if is_close else EventKind.CREATE, relpath)

    def expire(self, now: float) -> None:
        for relpath in self._left.pop_overdue(now):
            del self._cookies[relpath]
            self._deleted(relpath)

    def _deleted(self, relpath: str) -> None:
        if relpath.endswith(ARIA2_SUFFIX):
            self.tell(EventKind.CLOSE, relpath.removesuffix(ARIA2_SUFFIX))
        else:
            self.tell(EventKind.DELETE, relpath)

    def _moved(self, source: str, target: str) -> None:
        """A download that gets its final name is a new file; a file that gets a temporary name, or
        one that is not ours to upload, is gone."""
        if not self._selection.wants(source):
            self.tell(EventKind.CREATE, target)
        elif not self._selection.wants(target):
            self.tell(EventKind.DELETE, source)
        elif _may_be_file(self._path(target)):
            event = StreamEvent(kind=EventKind.MOVE, relpath=target, moved_from=source)
            self._pass_on(event)

    def tell(self, kind: EventKind, relpath: str) -> None:
        if not self._selection.wants(relpath):
            return
        if kind is not EventKind.DELETE:
            path = self._path(relpath)
            if not _may_be_file(path) or is_being_downloaded(self._root, relpath):
                return
        self._pass_on(StreamEvent(kind=kind, relpath=relpath))

    def _path(self, relpath: str) -> str:
        return os.path.join(self._root, relpath)


def _may_be_file(path: str) -> bool:
    """A name that is gone again passes: the event that says so is on its way."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return True
