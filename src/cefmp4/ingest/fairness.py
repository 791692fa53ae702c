"""Whose turn it is: at every level of the tree the folders take turns, however much waits in each.
So nobody gains by putting more files into a folder, or more folders into one that is not alone."""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Collection, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

T = TypeVar("T", bound=Hashable)

LEVELS = 8  # what lies deeper counts as one folder
BACKLOG_EVERY = 8  # of so many turns one is for the backlog


def branches_of(relpath: str) -> list[str]:
    """The folders that lead to a file, from the top."""
    return relpath.split("/", LEVELS)[:-1]


# Folders in the order of their turns, each with the like below it; at the end, under no name, the
# files of one folder, oldest first, with None.
_Branch = OrderedDict[Any, Any]


class FairQueue(Generic[T]):
    """Each item once. Within a folder, first come, first served. `branches`: those that lead to an
    item, from the top."""

    def __init__(self, branches: Callable[[T], list[str]]) -> None:
        self._branches = branches
        self._root: _Branch = OrderedDict()
        self._items: dict[T, None] = {}

    def __repr__(self) -> str:
        return f"<FairQueue {len(self)}>"

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, item: T) -> bool:
        return item in self._items

    def items(self) -> list[T]:
        return list(self._items)

    def put(self, item: T) -> None:
        if item in self._items:
            return
        branch = self._root
        for name in [*self._branches(item), ""]:  # the files of a folder count like a folder in it
            branch = branch.setdefault(name, OrderedDict())
        branch[item] = self._items[item] = None

    def first(self) -> T | None:
        first: T | None = None
        branch = self._root
        while branch:
            first = next(iter(branch))
            branch = branch[first]
        return first

    def take(self, item: T) -> None:
        """It is its turn now; the next one is that of another folder."""
        self._take_out(item, is_turn=True)

    def discard(self, item: T) -> None:
        if item in self._items:
            self._take_out(item, is_turn=False)

    def give_turn_away(self, item: T) -> None:
        for branch, name in self._way_to(item)[:-1]:
            branch.move_to_end(name)

    def _way_to(self, item: T) -> list[tuple[_Branch, object]]:
        branch = self._root
        way: list[tuple[_Branch, object]] = []
        for name in [*self._branches(item), "", item]:
            way.append((branch, name))
            branch = branch[name]
        return way

    def _take_out(self, item: T, *, is_turn: bool) -> None:
        del self._items[item]
        for branch, name in reversed(self._way_to(item)):
            if not branch[name]:  # the item itself, or a folder that has nothing left
                del branch[name]
            elif is_turn:
                branch.move_to_end(name)


class GrowingFirst(Generic[T]):
    """Two of them: what grows goes first, but for a turn of the backlog now and then."""

    def __init__(self, branches: Callable[[T], list[str]]) -> None:
        self.growing: FairQueue[T] = FairQueue(branches)
        self.backlog: FairQueue[T] = FairQueue(branches)
        self._turns = 0

    def __repr__(self) -> str:
        name = type(self).__name__
        return f"<{name} growing={len(self.growing)} backlog={len(self.backlog)}>"

    def __len__(self) -> int:
        return len(self.growing) + len(self.backlog)

    def __contains__(self, item: T) -> bool:
        return item in self.growing or item in self.backlog

    def put(self, item: T, *, is_growing: bool) -> None:
        """In its place among its like, which it keeps when it is put there again."""
        queue, other = (self.growing, self.backlog) if is_growing else (self.backlog, self.growing)
        other.discard(item)
        queue.put(item)

    def discard(self, item: T) -> None:
        self.growing.discard(item)
        self.backlog.discard(item)

    def first(self) -> T | None:
        is_turn_of_backlog = self._turns % BACKLOG_EVERY == BACKLOG_EVERY - 1
        if self.backlog and (is_turn_of_backlog or not self.growing):
            return self.backlog.first()
        return self.growing.first()

    def take(self, item: T) -> None:
        self._turns += 1
        self._queue_of(item).take(item)

    def give_turn_away(self, item: T) -> None:
        self._queue_of(item).give_turn_away(item)

    def _queue_of(self, item: T) -> FairQueue[T]:
        return self.growing if item in self.growing else self.backlog


@dataclass(slots=True, eq=False)
class Turn:
    """What somebody waits for."""

    relpath: str
    stream_id: str
    is_growing: bool
    comes: "asyncio.Future[None]" = field(init=False)

    def __post_init__(self) -> None:
        self.comes = asyncio.get_running_loop().create_future()

    @property
    def branches(self) -> list[str]:
        """The streams of a folder take turns, too."""
        return [*branches_of(self.relpath), "", self.stream_id]


class FairGate:
    """Lets so many in at the same time; the folders take turns, and what grows goes first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._inside = 0
        self._waiting: GrowingFirst[Turn] = GrowingFirst(lambda turn: turn.branches)

    def __repr__(self) -> str:
        return f"<FairGate inside={self._inside} waiting={len(self._waiting)}>"

    @asynccontextmanager
    async def enter(
        self, relpath: str, stream_id: str = "", *, is_growing: bool = True
    ) -> AsyncIterator[None]:
        turn = Turn(relpath, stream_id, is_growing)
        await self._enter(turn)
        try:
            yield
        finally:
            self._leave(turn)

    async def _enter(self, turn: Turn) -> None:
        if not self._waiting and self._has_room(turn):
            self._count(turn, +1)
            return
        self._line_up(turn)
        self._wake()  # it may go before those that wait
        try:
            await turn.comes
        except asyncio.CancelledError:
            if turn.comes.done() and not turn.comes.cancelled():
                self._leave(turn)  # it was our turn already: pass it on
            self._waiting.discard(turn)
            raise

    def _line_up(self, turn: Turn) -> None:
        """What its stream has in the line of the backlog comes along once it grows."""
        if turn.is_growing:
            for other in self._waiting.backlog.items():
                if other.stream_id == turn.stream_id:
                    self._waiting.put(other, is_growing=True)
        self._waiting.put(turn, is_growing=turn.is_growing)

    def _leave(self, turn: Turn) -> None:
        self._count(turn, -1)
        self._wake()

    def _wake(self) -> None:
        while (turn := self._next_in_line()) is not None:
            self._waiting.take(turn)
            if not turn.comes.done():
                self._count(turn, +1)
                turn.comes.set_result(None)

    def _next_in_line(self) -> Turn | None:
        """Nobody overtakes: a place left empty now is what makes room for the next. But for what
        grows, when the backlog may not go."""
        heads = (self._waiting.first(), self._waiting.growing.first())
        return next((turn for turn in heads if turn is not None and self._has_room(turn)), None)

    def _has_room(self, turn: Turn) -> bool:
        return self._inside < self._limit

    def _count(self, turn: Turn, change: int) -> None:
        self._inside += change


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
