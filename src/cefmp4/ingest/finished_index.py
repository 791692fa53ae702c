"""What is finished already: answers "have we stored these very bytes?" without asking Redis."""

from collections import deque
from dataclasses import dataclass

from cefmp4.model.stream import FileStamp, Stream

LATEST = 200  # streams that ended lately, kept whole for people to see
# Hard links are made by the thousand, and each candidate for a rename is opened.
PATHS_OF_AN_INODE = 8


@dataclass(frozen=True, slots=True)
class Finished:
    stream_id: str
    key: str
    stamp: FileStamp
    is_proven: bool


class FinishedIndex:
    """About 400 bytes a file, so that 100,000 stored files cost little and start fast."""

    def __init__(self) -> None:
        self.latest: deque[Stream] = deque(maxlen=LATEST)
        self._by_path: dict[str, Finished] = {}
        self._by_inode: dict[tuple[int, int, int], tuple[str, ...]] = {}

    def __len__(self) -> int:
        return len(self._by_path)

    def show(self, stream: Stream) -> None:
        """One that ended and has no file any more."""
        self.latest.append(stream)

    def add(self, stream: Stream) -> None:
        self.show(stream)
        if stream.stamp is None:
            return
        self.remove(stream.relpath)
        self._by_path[stream.relpath] = Finished(
            stream.id, stream.key, stream.stamp, stream.is_proven
        )
        likeness = _likeness(stream.stamp)
        others = self._by_inode.get(likeness, ())
        self._by_inode[likeness] = (*others, stream.relpath)[-PATHS_OF_AN_INODE:]

    def get(self, relpath: str) -> Finished | None:
        return self._by_path.get(relpath)

    def has(self, relpath: str, stamp: FileStamp) -> bool:
        known = self._by_path.get(relpath)
        return known is not None and known.stamp.is_unchanged(stamp)

    def former_paths_of(self, stamp: FileStamp) -> list[str]:
        """The paths under which this file may have been finished: candidates for a rename, and no
        more than that, because another file may have got its inode, size and date. Several file
        systems below the folder use the same inode numbers, and a boot gives them other device
        numbers: those of this device come first, and the others count, too. Of many, the latest:
        a file that is not found by them is sent as one of its own."""
        found = [(path, self._by_path[path]) for path in self._by_inode.get(_likeness(stamp), ())]
        likely = [
            (known.stamp.device != stamp.device, path) for path, known in found if known.is_proven
        ]
        return [path for _, path in sorted(likely)]

    def remove(self, relpath: str) -> None:
        known = self._by_path.pop(relpath, None)
        if known is None:
            return
        likeness = _likeness(known.stamp)
        others = tuple(path for path in self._by_inode.get(likeness, ()) if path != relpath)
        if others:
            self._by_inode[likeness] = others
        else:
            self._by_inode.pop(likeness, None)

    def remove_id(self, stream_id: str) -> str | None:
        for relpath, known in self._by_path.items():
            if known.stream_id == stream_id:
                self.remove(relpath)
                return relpath
        return None

    def entries(self) -> list[tuple[str, Finished]]:
        return list(self._by_path.items())


def _likeness(stamp: FileStamp) -> tuple[int, int, int]:
    return stamp.inode, stamp.size, stamp.mtime_ns
