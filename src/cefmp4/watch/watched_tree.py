"""Which folder each of the kernel's watches belongs to. A folder that moves takes all below it
along in one step, however many they are."""

from collections.abc import Iterator


class Folder:
    __slots__ = ("below", "name", "parent", "seen", "watch")

    def __init__(self, watch: int, name: str) -> None:
        self.watch = watch
        self.name = name
        self.parent: Folder | None = None
        self.below: dict[str, Folder] = {}
        self.seen = 0

    def __repr__(self) -> str:
        return f"<Folder {self.name!r} watch={self.watch} below={len(self.below)}>"

    def all_below(self) -> "Iterator[Folder]":
        """And itself."""
        waiting = [self]
        while waiting:
            one = waiting.pop()
            waiting.extend(one.below.values())
            yield one


class WatchedTree:
    """`levels`: no path is told of what lies deeper."""

    def __init__(self, levels: int) -> None:
        self._levels = levels
        self._by_watch: dict[int, Folder] = {}
        self.generation = 0
        self.root: Folder | None = None

    def __len__(self) -> int:
        return len(self._by_watch)

    def __repr__(self) -> str:
        return f"<WatchedTree {len(self)} folders>"

    def by_watch(self, watch: int) -> Folder | None:
        return self._by_watch.get(watch)

    def path_of(self, folder: Folder) -> str | None:
        """None where it lies deeper than anybody looks, as folders do that are moved there."""
        names: list[str] = []
        at: Folder | None = folder
        while at is not self.root:
            if at is None or len(names) >= self._levels:
                return None
            names.append(at.name)
            at = at.parent
        return "/".join(reversed(names))

    def put(self, watch: int, name: str, parent: Folder | None) -> tuple[Folder, list[int]]:
        """The folder of this watch lies here, wherever it was known to be before. Returns it and
        the watches of what had its place."""
        folder = self._by_watch.get(watch)
        if folder is None:
            folder = self._by_watch[watch] = Folder(watch, name)
        folder.seen = self.generation
        if parent is None:
            self.root = folder
            return folder, []
        return folder, self.move(folder, name, parent)

    def move(self, folder: Folder, name: str, parent: Folder) -> list[int]:
        """Returns the watches of what had its place, which are dropped."""
        held = parent.below.get(name)
        if held is folder or self._is_below(parent, folder):
            return []
        dropped = self.drop(held) if held is not None else []
        self._take_out(folder)
        folder.name, folder.parent = name, parent
        parent.below[name] = folder
        return dropped

    def begin_generation(self) -> None:
        """From now on what is put is marked, and `drop_unseen` drops all that is not."""
        self.generation += 1

    def drop_unseen(self) -> list[int]:
        unseen = [one for one in self._by_watch.values() if one.seen != self.generation]
        return [watch for one in unseen if one.watch in self._by_watch for watch in self.drop(one)]

    def drop(self, folder: Folder) -> list[int]:
        """Forgets it and all below it; returns their watches."""
        self._take_out(folder)
        dropped = [one.watch for one in folder.all_below()]
        for watch in dropped:
            self._by_watch.pop(watch, None)
        if folder is self.root:
            self.root = None
        return dropped

    def paths(self) -> Iterator[str]:
        if self.root is None:
            return
        waiting = [("", self.root)]
        while waiting:
            path, folder = waiting.pop()
            yield path
            prefix = f"{path}/" if path else ""
            if prefix.count("/") < self._levels:
                waiting.extend((prefix + name, one) for name, one in folder.below.items())

    def _take_out(self, folder: Folder) -> None:
        parent, folder.parent = folder.parent, None
        if parent is not None and parent.below.get(folder.name) is folder:
            del parent.below[folder.name]

    def _is_below(self, folder: Folder, above: Folder) -> bool:
        """What late events say may be a loop."""
        at: Folder | None = folder
        while at is not None:
            if at is above:
                return True
            at = at.parent
        return False
