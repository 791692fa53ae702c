"""What is finished already: answers "have we stored these very bytes?" without asking Redis."""

from collections import deque
from dataclasses import dataclass

from cefmp4.model.stream import FileStamp, Stream

LATEST = 200  # streams that ended lately, kept whole for people to see


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
        self._by_inode: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._by_path)

    def show(self, stream: Stream) -> None:
        """One that ended and has no file any more."""
        self.latest.append(stream)

    def add(self, stream: Stream) -> None:
        self.show(stream)
        if stream.stamp is None:
            return
        self._by_path[stream.relpath] = Finished(
            stream.id, stream.key, stream.stamp, stream.is_proven
        )
        self._by_inode[stream.stamp.inode] = stream.relpath

    def get(self, relpath: str) -> Finished | None:
        return self._by_path.get(relpath)

    def has(self, relpath: str, stamp: FileStamp) -> bool:
        known = self._by_path.get(relpath)
        return known is not None and known.stamp.is_unchanged(stamp)

    def former_path_of(self, stamp: FileStamp) -> str | None:
        """The path under which this file may have been finished: a candidate for a rename, and no
        more than that, because another file may have got its inode, size and date."""
        relpath = self._by_inode.get(stamp.inode)
        known = self._by_path.get(relpath) if relpath is not None else None
        if known is None or not known.is_proven:
            return None
        return relpath if known.stamp.has_size_and_date_of(stamp) else None

    def remove(self, relpath: str) -> None:
        known = self._by_path.pop(relpath, None)
        if known and self._by_inode.get(known.stamp.inode) == relpath:
            del self._by_inode[known.stamp.inode]

    def remove_id(self, stream_id: str) -> str | None:
        for relpath, known in self._by_path.items():
            if known.stream_id == stream_id:
                self.remove(relpath)
                return relpath
        return None

    def entries(self) -> list[tuple[str, Finished]]:
        return list(self._by_path.items())
