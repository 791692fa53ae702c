"""Cuts the fragmented MP4 that comes out of a pipe: an init segment, fragments, and segments made
of whole fragments. Holds no more than one segment."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from cefmp4.media.fragment_boxes import Sample, TrackHeader, read_fragment, read_header
from cefmp4.media.mp4_boxes import BrokenMediaError, box_at, child, is_cut

_MAX_BOX_BYTES = 192 * 1024 * 1024  # more than six seconds of any camera's own stream
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
    data: bytes
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
    """Feed it bytes as they come. What it yields is complete and its lengths are true."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._head = b""  # ftyp, until moov comes
        self._init: Init | None = None
        self._moof = b""

    def feed(self, data: bytes) -> Iterator[Fragment]:
        self._buffer += data
        while (size := self._box_size()) and len(self._buffer) >= size:
            box = bytes(memoryview(self._buffer)[:size])
            del self._buffer[:size]
            found = self._take(box)
            if found is not None:
                yield found

    def close(self) -> None:
        """The pipe has ended: nothing may be left over."""
        if self._buffer or self._moof:
            raise BrokenMediaError("the stream ends in the middle of a fragment")

    def _box_size(self) -> int:
        """Of the box at the front; 0 while too little of it is known."""
        header = bytes(self._buffer[:16])
        if is_cut(header):
            return 0
        box = box_at(header, 0, 0)
        if box is None or not 8 <= box.end <= _MAX_BOX_BYTES:
            raise BrokenMediaError(f"a box of {box.end if box else 0} bytes")
        return box.end

    def _take(self, box: bytes) -> Fragment | None:
        kind = box[4:8].decode("latin-1")
        if kind == "ftyp":
            self._head = box
        elif kind == "moov":
            if self._init is not None:
                raise BrokenMediaError("a second moov")
            header = read_header(child(memoryview(box), b"moov"))
            self._init = Init(data=self._head + box, header=header)
        elif kind == "moof":
            if self._init is None or self._moof:
                raise BrokenMediaError("a moof at the wrong place")
            self._moof = box
        elif kind == "mdat":
            return self._fragment(box)
        elif kind not in _IGNORED:
            raise BrokenMediaError(f"a box of kind {kind!r}")
        return None

    def _fragment(self, mdat: bytes) -> Fragment:
        if self._init is None or not self._moof:
            raise BrokenMediaError("an mdat without its moof")
        data, head = self._moof + mdat, len(self._moof)
        moof = child(memoryview(self._moof), b"moof")
        start, samples = read_fragment(moof, self._init.header)
        self._moof = b""
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
