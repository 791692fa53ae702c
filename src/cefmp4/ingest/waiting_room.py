"""The paths that wait: nobody has looked into them yet, or they must be looked at again although no
event will come."""

import os
from collections.abc import Iterable
from dataclasses import dataclass

from cefmp4.ingest.fairness import GrowingFirst, branches_of
from cefmp4.retry import Backoff

GLANCES_PER_BEAT = 4000  # some 15 ms of a thread
COMEBACK = Backoff(first_s=2.0, cap_s=60.0)  # for a stream that crashed on a bug, or is unreadable


class WaitingRoom(GrowingFirst[str]):
    """Names and sizes only, however many there are. What grows goes first, then the backlog; in
    each the folders take turns, the oldest file of one first."""

    def __init__(self) -> None:
        super().__init__(branches_of)
        self._sizes: dict[str, int] = {}  # of the backlog, as last seen
        self._round: list[str] = []  # of the backlog, still to be glanced at; the newest last

    def put(self, item: str, *, is_growing: bool, size: int | None = None) -> None:
        super().put(item, is_growing=is_growing)
        if size is not None and not is_growing:
            self.note([(item, size)])

    def discard(self, item: str) -> None:
        super().discard(item)
        self._sizes.pop(item, None)

    def take_next(self, *, may_be_backlog: bool) -> tuple[str, bool] | None:
        """And whether it grows; None where there is none that may go now."""
        relpath = self.first() if may_be_backlog else self.growing.first()
        if relpath is None:
            return None
        is_growing = relpath in self.growing
        self.take(relpath)
        self._sizes.pop(relpath, None)
        return relpath, is_growing

    def next_to_glance_at(self) -> list[str]:
        """Some of the backlog, in turn, for `glance`: nobody tells of a file that goes on growing
        while it waits. The newest first, because that is what a recorder wrote to last."""
        if not self._round:
            self._round = self.backlog.items()
        some = self._round[-GLANCES_PER_BEAT:]
        del self._round[-GLANCES_PER_BEAT:]
        return some

    def note(self, sizes: Iterable[tuple[str, int]]) -> None:
        """What has grown since the glance before goes to those that grow."""
        for relpath, size in sizes:
            if relpath in self.backlog:
                before = self._sizes.setdefault(relpath, size)
                if size > before:
                    super().put(relpath, is_growing=True)
                self._sizes[relpath] = size


def glance(root: str, relpaths: Iterable[str]) -> list[tuple[str, int]]:
    """Their sizes, of those that are there. Blocking."""
    sizes = []
    for relpath in relpaths:
        try:
            sizes.append((relpath, os.lstat(f"{root}/{relpath}").st_size))
        except OSError:
            continue
    return sizes


@dataclass(slots=True)
class _Comeback:
    at: float
    failures: int
    is_growing: bool


class Comebacks:
    def __init__(self) -> None:
        self._of: dict[str, _Comeback] = {}

    def __repr__(self) -> str:
        return f"<Comebacks {len(self._of)}>"

    def __contains__(self, relpath: str) -> bool:
        return relpath in self._of

    def put(
        self, relpath: str, now: float, *, is_growing: bool, pause_s: float | None = None
    ) -> None:
        """Later and later for one that fails again and again, unless `pause_s` says when."""
        before = self._of.get(relpath)
        failures = before.failures + 1 if before else 1
        wait = pause_s if pause_s is not None else COMEBACK.wait_s(failures)
        self._of[relpath] = _Comeback(now + wait, failures, is_growing)

    def discard(self, relpath: str) -> None:
        """It came to something."""
        self._of.pop(relpath, None)

    def due(self, now: float) -> list[tuple[str, bool]]:
        """With whether it was growing. Until `began` they are due."""
        return [(path, one.is_growing) for path, one in self._of.items() if one.at <= now]

    def began(self, relpath: str) -> None:
        self._of[relpath].at = float("inf")
