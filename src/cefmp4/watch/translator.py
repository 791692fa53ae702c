"""What the kernel tells of files, as StreamEvents of those that are wanted."""

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass

from cefmp4.model.event import EventKind, StreamEvent
from cefmp4.watch import inotify_calls as kernel
from cefmp4.watch.downloads import ARIA2_SUFFIX, is_being_downloaded
from cefmp4.watch.selection import Selection

PAIRING_S = 0.5  # in which the second half of a rename comes, if it does


@dataclass(frozen=True, slots=True)
class _Left:
    """A name that a file was renamed from."""

    relpath: str
    until: float


class Translator:
    def __init__(
        self, root: str, selection: Selection, tell: Callable[[StreamEvent], None]
    ) -> None:
        self._root = root
        self._selection = selection
        self._pass_on = tell
        self._left: dict[int, _Left] = {}
        self._cookies: dict[str, int] = {}

    @property
    def next_at(self) -> float:
        """When `expire` must be called."""
        return next((left.until for left in self._left.values()), float("inf"))

    def take(self, event: kernel.RawEvent, relpath: str, now: float) -> None:
        if event.mask & kernel.IN_MOVED_TO and (left := self._pop(event.cookie)) is not None:
            self._moved(left.relpath, relpath)
            return
        if (cookie := self._cookies.get(relpath)) is not None:
            self._gone(cookie)  # something new has its name: that it went comes first
        if event.mask & kernel.IN_MOVED_FROM:
            self._left[event.cookie] = _Left(relpath, now + PAIRING_S)
            self._cookies[relpath] = event.cookie
        elif event.mask & kernel.IN_DELETE:
            self._deleted(relpath)
        else:
            is_close = bool(event.mask & kernel.IN_CLOSE_WRITE)
            self._tell(EventKind.CLOSE if is_close else EventKind.CREATE, relpath)

    def found(self, relpath: str) -> None:
        """A file in a folder that has its watch only now."""
        self._tell(EventKind.CREATE, relpath)

    def expire(self, now: float) -> None:
        """A file whose rename has no second half is outside now."""
        while (first := next(iter(self._left), None)) is not None:
            if self._left[first].until > now:
                return
            self._gone(first)

    def _gone(self, cookie: int) -> None:
        if (left := self._pop(cookie)) is not None:
            self._deleted(left.relpath)

    def _pop(self, cookie: int) -> _Left | None:
        left = self._left.pop(cookie, None)
        if left is not None and self._cookies.get(left.relpath) == cookie:
            del self._cookies[left.relpath]
        return left

    def _deleted(self, relpath: str) -> None:
        if relpath.endswith(ARIA2_SUFFIX):
            self._tell(EventKind.CLOSE, relpath.removesuffix(ARIA2_SUFFIX))
        else:
            self._tell(EventKind.DELETE, relpath)

    def _moved(self, source: str, target: str) -> None:
        """A download that gets its final name is a new file; a file that gets a temporary name, or
        one that is not ours to upload, is gone."""
        if not self._selection.wants(source):
            self._tell(EventKind.CREATE, target)
        elif not self._selection.wants(target):
            self._tell(EventKind.DELETE, source)
        elif _may_be_file(self._path(target)):
            event = StreamEvent(kind=EventKind.MOVE, relpath=target, moved_from=source)
            self._pass_on(event)

    def _tell(self, kind: EventKind, relpath: str) -> None:
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
