"""Cuts the fragmented MP4 that comes out of a pipe: an init segment, fragments, and segments made
of whole fragments. Holds no more than one segment."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from cefmp4.media.fragment_boxes import Sample, TrackHeader, read_fragment, read_header
from cefmp4.media.mp4_boxes import BrokenMediaError, box_at, child, is_cut

_MAX_BOX_BYTES = 192 * 1024 * 1024  # more than six seconds of any camera's own stream
_HEADER_BYTES = 8  # twice that where it is long
_IGNORED = frozenset({"styp", "sidx", "free", "skip", "prft", "emsg", "mfra"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Init:
    """Everything before the first fragment."""

    data: bytes
    header: TrackHeader


@dataclass(frozen=True, slots=True, kw_only=True)
class Fragment:
    """A moof and its mdat. Times count in the timescale of the track."""

    init: Init
    data: bytes | bytearray
    start: int
    duration: int
    samples: list[Sample]

    @property
    def end(self) -> int:
        return self.start + self.duration

    @property
    def end_s(self) -> float:
        return self.end / self.init.header.timescale

    @property
    def first_sample(self) -> memoryview:
        first = self.samples[0]
        return memoryview(self.data)[first.offset : first.offset + first.size]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFrame:
    """A range of the segment that decodes alone: a fragment up to the end of its first sample."""

    offset: int
    size: int
    duration: int


class FragmentParser:
    """Fill its `room` with the bytes as they come, and say how many it `took`. What it yields is
    complete and its lengths are true. A fragment is some megabytes, and hundreds come in a second,
    so that every byte is read to where it stays."""

    def __init__(self) -> None:
        self._head = b""  # ftyp, until moov comes
        self._init: Init | None = None
        self._moof = bytearray()  # until its mdat comes, with which it is one
        self._begin_box()

    @property
    def room(self) -> memoryview:
        """Where the next bytes go; never empty."""
        return memoryview(self._data)[self._filled :]

    def took(self, count: int) -> Fragment | None:
        """So many bytes of the room are filled. A fragment, where it ends with them."""
        self._filled += count
        while self._filled == len(self._data):
            if not self._size:
                self._make_room()
            else:
                data, start = self._data, len(self._data) - self._size
                self._begin_box()
                return self._take(data, start)
        return None

    def close(self) -> None:
        """The pipe has ended: nothing may be left over."""
        if self._filled or self._moof:
            raise BrokenMediaError("the stream ends in the middle of a fragment")

    def _begin_box(self) -> None:
        self._data, self._filled = bytearray(_HEADER_BYTES), 0
        self._size = 0  # of the box; 0 while too little of it is known

    def _make_room(self) -> None:
        """For the rest of the box, now that its header is there, or for the rest of that."""
        header = self._data
        if is_cut(header):
            self._data = header + bytes(_HEADER_BYTES)
            return
        box = box_at(header, 0, 0)
        if box is None or not 8 <= box.end <= _MAX_BOX_BYTES:
            raise BrokenMediaError(f"a box of {box.end if box else 0} bytes")
        before = self._moof + header if box.kind == b"mdat" else header
        self._size, self._filled = box.end, len(before)
        self._data = bytearray(len(before) - len(header) + box.end)
        self._data[: len(before)] = before

    def _take(self, data: bytearray, start: int) -> Fragment | None:
        """`data`: a box, that of an mdat behind its moof."""
        kind = data[start + 4 : start + 8].decode("latin-1")
        if kind == "ftyp":
            self._head = bytes(data)
        elif kind == "moov":
            if self._init is not None:
                raise BrokenMediaError("a second moov")
            header = read_header(child(memoryview(data), b"moov"))
            self._init = Init(data=self._head + data, header=header)
        elif kind == "moof":
            if self._init is None or self._moof:
                raise BrokenMediaError("a moof at the wrong place")
            self._moof = data
        elif kind == "mdat":
            return self._fragment(data, start)
        elif kind not in _IGNORED:
            raise BrokenMediaError(f"a box of kind {kind!r}")
        return None

    def _fragment(self, data: bytearray, head: int) -> Fragment:
        if self._init is None or not self._moof:
            raise BrokenMediaError("an mdat without its moof")
        moof = child(memoryview(self._moof), b"moof")
        start, samples = read_fragment(moof, self._init.header)
        self._moof = bytearray()
        if any(s.offset < head or s.offset + s.size > len(data) for s in samples):
            raise BrokenMediaError("a sample lies outside of its fragment")
        duration = sum(sample.duration for sample in samples)
        return Fragment(init=self._init, data=data, start=start, duration=duration, samples=samples)


@dataclass(slots=True)
class SegmentCutter:
    """Collects fragments into segments, each as near to the target as whole fragments allow.
    Closing at the first fragment past the target instead would drift to eight seconds wherever
    three groups of pictures last 5.999."""

    target_s: float
    _fragments: list[Fragment] = field(default_factory=list)

    def add(self, fragment: Fragment) -> list[Fragment]:
        """The segment before, where this fragment begins a new one; else nothing."""
        if not fragment.samples[0].is_sync:
            raise BrokenMediaError("a fragment does not begin with a key frame")
        if self._fragments and fragment.start != self._fragments[-1].end:
            gap = fragment.start - self._fragments[-1].end
            gap_s = gap / fragment.init.header.timescale
            raise BrokenMediaError(f"a hole of {gap_s:.3f} s between two fragments")
        closed: list[Fragment] = []
        if self._is_better_without(fragment):
            closed, self._fragments = self._fragments, []
        self._fragments.append(fragment)
        return closed

    def close(self) -> list[Fragment]:
        """The rest, at the end of the stream."""
        return self._fragments

    def _is_better_without(self, fragment: Fragment) -> bool:
        if not self._fragments:
            return False
        start = self._fragments[0].start
        target = self.target_s * fragment.init.header.timescale
        return abs(fragment.start - start - target) <= abs(fragment.end - start - target)


def key_frames(segment: list[Fragment]) -> Iterator[KeyFrame]:
    offset = 0
    for fragment in segment:
        first = fragment.samples[0]
        yield KeyFrame(offset=offset, size=first.offset + first.size, duration=fragment.duration)
        offset += len(fragment.data)
