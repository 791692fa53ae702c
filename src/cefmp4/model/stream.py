"""A stream: one recording, from first sight to its end."""

from dataclasses import dataclass, field, replace
from enum import StrEnum

from cefmp4.errors import InvariantError
from cefmp4.model.part import Part, PartPlan, PartSizing


class StreamState(StrEnum):
    DISCOVERED = "discovered"  # seen, nothing sent yet
    UPLOADING = "uploading"  # parts leave as the file grows
    STALE = "stale"  # quiet for the stream timeout; being compared with the disk
    FINALIZING = "finalizing"  # the writer is done; proving every part
    STORED = "stored"  # the object is complete and proven
    DESCRIBED = "described"  # the metadata document lies beside it
    HANDED_OVER = "handed_over"  # its jobs are queued
    FAILED = "failed"  # it will not be stored; `reason` says why
    DROPPED = "dropped"  # vanished before anything was sent


S = StreamState
TRANSITIONS: dict[StreamState, frozenset[StreamState]] = {
    S.DISCOVERED: frozenset({S.UPLOADING, S.STALE, S.FINALIZING, S.FAILED, S.DROPPED}),
    S.UPLOADING: frozenset({S.STALE, S.FINALIZING, S.FAILED, S.DROPPED}),
    S.STALE: frozenset({S.UPLOADING, S.FINALIZING, S.FAILED, S.DROPPED}),
    S.FINALIZING: frozenset({S.UPLOADING, S.STORED, S.FAILED, S.DROPPED}),
    S.STORED: frozenset({S.DESCRIBED, S.FAILED}),
    S.DESCRIBED: frozenset({S.HANDED_OVER, S.FAILED}),
    S.HANDED_OVER: frozenset(),
    S.FAILED: frozenset(),
    S.DROPPED: frozenset(),
}
PROVEN_STATES = frozenset({S.STORED, S.DESCRIBED, S.HANDED_OVER})
FINAL_STATES = frozenset({S.DESCRIBED, S.HANDED_OVER, S.FAILED, S.DROPPED})


@dataclass(frozen=True, slots=True)
class FileStamp:
    """What identifies one content of one file. The change time is in it because nobody can set it,
    unlike the modification time; the birth time because inode numbers are used again at once.

    Never compare two of them with `==` where one was written down: device numbers change with a
    boot or a mount, and what an older version wrote down knows no birth."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    birth_ns: int = 0  # 0: not known
    device: int = 0  # 0: not known

    def is_unchanged(self, other: "FileStamp") -> bool:
        """Of two looks at the same path: whether it led to the same bytes both times."""
        return (
            self.inode == other.inode
            and self.ctime_ns == other.ctime_ns
            and self.mtime_ns == other.mtime_ns
            and self.size == other.size
            and (self.birth_ns == other.birth_ns or not (self.birth_ns and other.birth_ns))
        )

    def is_same_file(self, other: "FileStamp") -> bool | None:
        """Whatever its name and content: whether both are of one file. None where that cannot be
        told, so that only the bytes can: a birth or a device is not known, or the devices have
        different numbers, which a boot may have given to one and the same."""
        if self.inode != other.inode or (self.birth_ns != other.birth_ns and self._knows(other)):
            return False
        is_proof = self._knows(other) and self.device != 0 and self.device == other.device
        return True if is_proof else None

    def _knows(self, other: "FileStamp") -> bool:
        return self.birth_ns != 0 and other.birth_ns != 0

    def has_size_and_date_of(self, other: "FileStamp") -> bool:
        """What a rename keeps, and what two files may well have in common: a reason to look
        closer, and no proof of anything."""
        return (self.size, self.mtime_ns) == (other.size, other.mtime_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """What is known of a stream at one moment. While somebody works on it, its StreamRecord alone
    puts the next one in its place: look there again after every wait."""

    id: str
    relpath: str
    folder: str = ""  # identity of the watched folder; "": written by an older version
    generation: int = 1
    previous_id: str | None = None  # the generation before this one
    state: StreamState = StreamState.DISCOVERED
    reason: str = ""
    key: str = ""
    upload_id: str = ""
    is_adopted: bool = False  # the upload was begun under a stream id that nobody remembers
    part_base: int
    part_sizing: PartSizing = PartSizing.GROW
    sent_high: int = 0  # the furthest byte ever sent; a file shorter than this was truncated
    size: int = 0
    stamp: FileStamp | None = None  # as last seen; once proven, of the proven bytes
    crc64: int = 0
    sha256: str = ""
    etag: str = ""
    playable: bool | None = None
    owes_jobs: bool = False  # described, and the engine of jobs has not taken them yet
    started_at: float = 0.0
    closed_at: float = 0.0  # when the writer was last seen to close it
    completed_at: float = 0.0
    updated_at: float = 0.0
    host: str = ""

    def __repr__(self) -> str:
        return f"<Stream {self.id} {self.state} {self.relpath!r} sent_high={self.sent_high}>"

    def moved_to(self, state: StreamState, reason: str = "") -> "Stream":
        """The one way to change the state; staying where one is, is no transition, but there may be
        another reason for it."""
        if state is self.state:
            return replace(self, reason=reason or self.reason)
        if state not in TRANSITIONS[self.state]:
            raise InvariantError(f"stream {self.id} cannot go from {self.state} to {state}")
        return replace(self, state=state, reason=reason)

    def found_at(self, relpath: str, stamp: FileStamp | None) -> "Stream":
        """The same bytes, under another name or with other dates."""
        return replace(self, relpath=relpath, stamp=stamp)

    def in_folder(self, folder: str) -> "Stream":
        return replace(self, folder=folder)

    @property
    def plan(self) -> PartPlan:
        return PartPlan(self.part_base, self.part_sizing)

    @property
    def held_key(self) -> str:
        """The key that no other stream may store under; a stream that ended without an object
        holds none."""
        return "" if self.state in (StreamState.FAILED, StreamState.DROPPED) else self.key

    @property
    def is_proven(self) -> bool:
        return self.state in PROVEN_STATES

    @property
    def is_final(self) -> bool:
        return self.state in FINAL_STATES

    @property
    def may_start_again(self) -> bool:
        """A recording that vanished and came back, unlike one that failed for a reason that
        stays."""
        return self.state is StreamState.DROPPED or self.reason.startswith(("missing", "truncated"))

    @property
    def has_failed(self) -> bool:
        return self.state is StreamState.FAILED


@dataclass(frozen=True, slots=True)
class StoredStream:
    """A stream whose object is there, as the store tells it; `parts` where they are known."""

    stream: Stream
    parts: dict[int, Part] = field(default_factory=dict)
