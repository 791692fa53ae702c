"""Whose turn it is: at every level of the tree the folders take turns, however much waits in each.
So nobody gains by putting more files into a folder, or more folders into one that is not alone."""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Collection, Hashable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)

LEVELS = 8  # what lies deeper counts as one folder
BACKLOG_EVERY = 8  # of so many turns one is for what is in no hurry


def branches_of(relpath: str) -> list[str]:
    """The folders that lead to a file, from the top."""
    return relpath.split("/", LEVELS)[:-1]


class _Branch(Generic[T]):
    """A folder with folders below it, or the files of one folder."""

    __slots__ = ("below", "items")

    def __init__(self) -> None:
        self.below: OrderedDict[str, _Branch[T]] = OrderedDict()  # in the order of their turns
        self.items: OrderedDict[T, None] = OrderedDict()  # oldest first

    @property
    def is_empty(self) -> bool:
        return not (self.below or self.items)


class FairQueue(Generic[T]):
    """Each item once. Within a folder, first come, first served."""

    def __init__(self) -> None:
        self._root: _Branch[T] = _Branch()
        self._path_of: dict[T, str] = {}

    def __repr__(self) -> str:
        return f"<FairQueue {len(self)}>"

    def __len__(self) -> int:
        return len(self._path_of)

    def __contains__(self, item: T) -> bool:
        return item in self._path_of

    def items(self) -> list[T]:
        return list(self._path_of)

    def put(self, item: T, relpath: str) -> None:
        if item in self._path_of:
            return
        branch = self._root
        for name in [*branches_of(relpath), ""]:  # the files of a folder count like a folder in it
            if name not in branch.below:
                branch.below[name] = _Branch()
            branch = branch.below[name]
        branch.items[item] = None
        self._path_of[item] = relpath

    def first(self) -> T:
        branch = self._root
        while branch.below:
            branch = next(iter(branch.below.values()))
        return next(iter(branch.items))

    def pop(self) -> T:
        item = self.first()
        self.take(item)
        return item

    def take(self, item: T) -> None:
        """It is its turn now; the next one is that of another folder."""
        self._take_out(item, is_turn=True)

    def discard(self, item: T) -> None:
        if item in self._path_of:
            self._take_out(item, is_turn=False)

    def give_turn_away(self) -> None:
        for parent, name in self._way_to(self.first()):
            parent.below.move_to_end(name)

    def _way_to(self, item: T) -> list[tuple[_Branch[T], str]]:
        branch, way = self._root, []
        for name in [*branches_of(self._path_of[item]), ""]:
            way.append((branch, name))
            branch = branch.below[name]
        return way

    def _take_out(self, item: T, *, is_turn: bool) -> None:
        way = self._way_to(item)
        leaf, files = way[-1]
        del leaf.below[files].items[item], self._path_of[item]
        for parent, name in reversed(way):
            if parent.below[name].is_empty:
                del parent.below[name]
            elif is_turn:
                parent.below.move_to_end(name)


class HurriedQueue(Generic[T]):
    """Two of them: what is in a hurry goes first, but for a turn now and then."""

    def __init__(self) -> None:
        self.hurried: FairQueue[T] = FairQueue()
        self.patient: FairQueue[T] = FairQueue()
        self._turns = 0

    def __repr__(self) -> str:
        return f"<HurriedQueue hurried={len(self.hurried)} patient={len(self.patient)}>"

    def __len__(self) -> int:
        return len(self.hurried) + len(self.patient)

    def __contains__(self, item: T) -> bool:
        return item in self.hurried or item in self.patient

    def put(self, item: T, relpath: str, *, is_hurried: bool) -> None:
        """In its place among its like, which it keeps when it is put there again."""
        queue, other = (self.hurried, self.patient) if is_hurried else (self.patient, self.hurried)
        other.discard(item)
        queue.put(item, relpath)

    def discard(self, item: T) -> None:
        self.hurried.discard(item)
        self.patient.discard(item)

    def first(self) -> T:
        return self._next.first()

    def pop(self) -> T:
        item = self.first()
        self.take(item)
        return item

    def take(self, item: T) -> None:
        self._turns += 1
        (self.hurried if item in self.hurried else self.patient).take(item)

    def give_turn_away(self) -> None:
        self._next.give_turn_away()

    @property
    def _next(self) -> FairQueue[T]:
        is_patients_turn = self._turns % BACKLOG_EVERY == BACKLOG_EVERY - 1
        if self.patient and (is_patients_turn or not self.hurried):
            return self.patient
        return self.hurried


class FairGate:
    """Lets so many in at the same time; the folders take turns."""

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._waiting: FairQueue[asyncio.Future[None]] = FairQueue()

    def __repr__(self) -> str:
        return f"<FairGate free={self._free} waiting={len(self._waiting)}>"

    @asynccontextmanager
    async def enter(self, relpath: str) -> AsyncIterator[None]:
        if self._free:
            self._free -= 1
        else:
            await self._wait(relpath)
        try:
            yield
        finally:
            self._leave()

    async def _wait(self, relpath: str) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.put(turn, relpath)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave()  # it was our turn already: pass it on
            self._waiting.discard(turn)
            raise

    def _leave(self) -> None:
        while self._waiting:
            turn = self._waiting.pop()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


def one_too_many(held: Collection[str], wanting: str) -> str | None:
    """Which of the `held` paths, the newest last, should give way to `wanting`: one of the fullest
    branch where their ways part, if that holds at least two more than the other one. None: all
    have their share."""
    rest = list(held)
    for level, name in enumerate([*branches_of(wanting), ""]):
        names = {path: ([*branches_of(path), ""])[level] for path in rest}
        counts = Counter(names.values())
        if not counts:
            return None
        fullest = max(counts, key=lambda each: counts[each])
        if fullest != name and counts[fullest] >= counts[name] + 2:
            return _newest_of_fullest([path for path in rest if names[path] == fullest], level + 1)
        rest = [path for path in rest if names[path] == name]
    return None


def _newest_of_fullest(paths: list[str], level: int) -> str:
    """Down the fullest branches to the files of one folder."""
    while len({tuple(branches_of(path)) for path in paths}) > 1:
        names = [([*branches_of(path), ""])[level] for path in paths]
        fullest = Counter(names).most_common(1)[0][0]
        paths = [path for path, name in zip(paths, names, strict=True) if name == fullest]
        level += 1
    return paths[-1]
