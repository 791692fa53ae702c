"""The folders that a walk has still to visit. A tree is made by whoever may write there, so depth
and number are bounded, and the turns go round: who fills one folder of the root takes nothing from
the others."""

import heapq
import os
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, TypeVar

MOST_FOLDERS = 250_000
MOST_LEVELS = 100
# The kernel takes no path of 4,096 bytes; a file's name has up to 255 of them.
LONGEST_PATH = 4096 - 1 - 256

T = TypeVar("T")


class Limit(StrEnum):
    DEPTH = "depth"
    COUNT = "count"


# What to say of folders beyond a limit, and what helps.
BEYOND = {
    Limit.DEPTH: ("folders lie too deep: what is in them is not uploaded", "move them higher up"),
    Limit.COUNT: (
        "too many folders: what is in those beyond the limit is not uploaded",
        "raise WATCH_MAX_FOLDERS, or move finished folders away",
    ),
}


@dataclass(slots=True)
class LeftOut:
    """Folders beyond a limit: how many, one of them, and in which folders they lie."""

    counts: dict[Limit, int] = field(default_factory=dict)
    examples: dict[Limit, str] = field(default_factory=dict)
    parents: set[str] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.counts)

    def note(self, limit: Limit, relpath: str) -> None:
        self.counts[limit] = self.counts.get(limit, 0) + 1
        self.examples.setdefault(limit, relpath)
        self.parents.add(relpath.rpartition("/")[0])


class FolderQueue(Generic[T]):
    """Deals out at most as many folders as the limit says; the first of each folder of the root
    come before the second of any."""

    def __init__(self, root: str, most_folders: int = MOST_FOLDERS) -> None:
        self.left_out = LeftOut()
        self._most = most_folders
        self._longest = LONGEST_PATH - len(os.fsencode(root)) - 1
        self._taken = 0
        self._added = 0
        self._ranks: dict[str, int] = {}
        self._waiting: list[tuple[int, int, str, T]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, relpath: str, context: T) -> None:
        is_deep = relpath.count("/") >= MOST_LEVELS
        if is_deep or len(os.fsencode(relpath)) > self._longest:
            self.left_out.note(Limit.DEPTH, relpath)
            return
        branch = relpath.partition("/")[0]
        rank = self._ranks.get(branch, 0)
        if rank >= self._most:
            self.left_out.note(Limit.COUNT, relpath)
            return
        self._ranks[branch] = rank + 1
        self._added += 1
        heapq.heappush(self._waiting, (rank, self._added, relpath, context))
        if len(self._waiting) > 2 * self._most:
            self._keep(self._most)

    def take(self) -> tuple[str, T] | None:
        if self._taken >= self._most:
            self._keep(0)
        if not self._waiting:
            return None
        self._taken += 1
        _, _, relpath, context = heapq.heappop(self._waiting)
        return relpath, context

    def _keep(self, count: int) -> None:
        self._waiting.sort()  # which is a heap, too
        for _, _, relpath, _ in self._waiting[count:]:
            self.left_out.note(Limit.COUNT, relpath)
        del self._waiting[count:]
