"""Which folder each of the kernel's watches belongs to. A folder that moves takes all below it
along in one step, however many they are."""

from cefmp4.watch import walk
from cefmp4.watch.inotify_calls import Inotify


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


class WatchedTree:
    """What is dropped is watched no more. No path is told of what lies deeper than anybody looks,
    as folders may that are moved there."""

    def __init__(self, kernel: Inotify, most_folders: int) -> None:
        self._kernel = kernel
        self._most_folders = most_folders
        self._by_watch: dict[int, Folder] = {}
        self.generation = 0
        self.root: Folder | None = None

    def __len__(self) -> int:
        return len(self._by_watch)

    def __repr__(self) -> str:
        return f"<WatchedTree {len(self)} folders>"

    def by_watch(self, watch: int) -> Folder | None:
        return self._by_watch.get(watch)

    def at(self, path: str) -> Folder | None:
        folder = self.root
        for name in path.split("/") if path else ():
            folder = folder.below.get(name) if folder is not None else None
        return folder

    def path_of(self, folder: Folder) -> str | None:
        """None where it lies too deep."""
        names: list[str] = []
        at: Folder | None = folder
        while at is not self.root:
            if at is None or len(names) >= walk.MOST_LEVELS:
                return None
            names.append(at.name)
            at = at.parent
        return "/".join(reversed(names))

    def watch(self, fd: int, name: str, parent: Folder | None) -> Folder | None:
        """The folder of this descriptor lies here, wherever it was known to be before. None where
        there are too many."""
        watch = self._kernel.add(fd)
        folder = self._by_watch.get(watch)
        if folder is None:
            if len(self) >= self._most_folders:
                self._kernel.remove(watch)
                return None
            folder = self._by_watch[watch] = Folder(watch, name)
        folder.seen = self.generation
        if parent is None:
            self.root = folder
        else:
            self.move(folder, name, parent)
        return folder

    def move(self, folder: Folder, name: str, parent: Folder) -> None:
        """What had its place is dropped."""
        held = parent.below.get(name)
        if held is folder or self._is_below(parent, folder):
            return
        if held is not None:
            self.drop(held)
        self._take_out(folder)
        folder.name, folder.parent = name, parent
        parent.below[name] = folder

    def drop_unseen(self) -> None:
        """All but the root that was not watched, or watched again, since `generation` grew."""
        for folder in list(self._by_watch.values()):
            is_unseen = folder.seen != self.generation and folder is not self.root
            if is_unseen and folder.watch in self._by_watch:
                self.drop(folder)

    def drop(self, folder: Folder) -> None:
        """And all below it."""
        self._take_out(folder)
        if folder is self.root:
            self.root = None
        waiting = [folder]
        while waiting:
            one = waiting.pop()
            waiting.extend(one.below.values())
            if self._by_watch.pop(one.watch, None) is not None:
                self._kernel.remove(one.watch)

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
