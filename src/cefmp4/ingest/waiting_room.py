"""The paths that nobody has looked into yet: names and sizes only, however many there are. What
grows goes first, then the backlog; in each the folders take turns, the oldest file of one first."""

import os
from collections.abc import Iterable

from cefmp4.ingest.fairness import HurriedQueue, branches_of

GLANCES_PER_BEAT = 4000  # some 15 ms of a thread


class WaitingRoom:
    def __init__(self) -> None:
        self._paths: HurriedQueue[str] = HurriedQueue(branches_of)
        self._sizes: dict[str, int] = {}  # of the backlog, as last seen
        self._round: list[str] = []  # of the backlog, still to be glanced at; the newest last

    def __repr__(self) -> str:
        return f"<WaitingRoom {self._paths}>"

    def __len__(self) -> int:
        return len(self._paths)

    def __contains__(self, relpath: str) -> bool:
        return relpath in self._paths

    def put(self, relpath: str, *, is_growing: bool, size: int | None = None) -> None:
        self._paths.put(relpath, is_hurried=is_growing)
        if size is not None and not is_growing:
            self.note([(relpath, size)])

    def discard(self, relpath: str) -> None:
        self._paths.discard(relpath)
        self._sizes.pop(relpath, None)

    def is_growing(self, relpath: str) -> bool:
        return relpath in self._paths.hurried

    def first(self) -> str | None:
        return self._paths.first() if self._paths else None

    def give_turn_away(self) -> None:
        self._paths.give_turn_away()

    def take(self, *, may_be_backlog: bool) -> tuple[str, bool] | None:
        """The next one, and whether it grows; None where there is none that may go now."""
        among = self._paths if may_be_backlog else self._paths.hurried
        if not among:
            return None
        relpath = among.first()
        is_growing = self.is_growing(relpath)
        self._paths.take(relpath)
        self._sizes.pop(relpath, None)
        return relpath, is_growing

    def next_to_glance_at(self) -> list[str]:
        """Some of the backlog, in turn, for `glance`: nobody tells of a file that goes on growing
        while it waits. The newest first, because that is what a recorder wrote to last."""
        if not self._round:
            self._round = self._paths.patient.items()
        some = self._round[-GLANCES_PER_BEAT:]
        del self._round[-GLANCES_PER_BEAT:]
        return some

    def note(self, sizes: Iterable[tuple[str, int]]) -> None:
        """What has grown since the glance before goes to those that grow."""
        for relpath, size in sizes:
            if relpath in self._paths.patient:
                before = self._sizes.setdefault(relpath, size)
                if size > before:
                    self._paths.put(relpath, is_hurried=True)
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
