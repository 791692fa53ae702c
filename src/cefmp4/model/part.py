"""Parts of a stream, and which bytes belong to which part number."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from cefmp4.model.names import META_PART_BASE, META_PART_SIZING
from cefmp4.model.object import ListedPart

MIB = 1024 * 1024
GIB = 1024 * MIB
MIN_PART_BYTES = 5 * MIB  # S3 refuses smaller parts, except the last
MAX_PART_BYTES = 5 * GIB
MAX_PARTS = 10_000
MAX_OBJECT_BYTES = MAX_PARTS * MAX_PART_BYTES

# A part is never more than 1/256 of what lies before it, so a long recording stays as close to its
# writer as a short one, and 10,000 parts still reach 44 TiB from a 10 MiB start.
GROWTH_DIVISOR = 256


class PartSizing(StrEnum):
    GROW = "grow"
    EQUAL = "equal"  # for stores that demand parts of one size


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part as the store confirmed it. `crc64` is the CRC-64/NVME of the bytes it holds."""

    number: int
    size: int
    crc64: int
    etag: str
    uploaded_at: float


@dataclass(frozen=True, slots=True)
class PartRange:
    """The bytes [start, end) that part `number` covers when it is full."""

    number: int
    start: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start

    def within(self, file_size: int) -> "PartRange":
        return PartRange(self.number, self.start, min(self.end, file_size))


@lru_cache(maxsize=32)
def _boundaries(base: int, sizing: PartSizing) -> tuple[int, ...]:
    offsets = [0]
    for _ in range(MAX_PARTS):
        size = base
        if sizing is PartSizing.GROW:
            grown = offsets[-1] // GROWTH_DIVISOR // MIB * MIB
            size = min(max(base, grown), MAX_PART_BYTES)
        offsets.append(offsets[-1] + size)
    return tuple(offsets)


@dataclass(frozen=True, slots=True)
class PartPlan:
    """Maps offsets to part numbers. It depends on nothing but its two fields, so that a restart,
    another host and an adopted upload all cut a file at the same places."""

    base: int
    sizing: PartSizing = PartSizing.GROW

    @property
    def capacity(self) -> int:
        return _boundaries(self.base, self.sizing)[-1]

    def range_of(self, number: int) -> PartRange:
        if not 1 <= number <= MAX_PARTS:
            raise ValueError(f"part number {number} is not within 1..{MAX_PARTS}")
        offsets = _boundaries(self.base, self.sizing)
        return PartRange(number, offsets[number - 1], offsets[number])

    def place_of(self, part: ListedPart | Part) -> PartRange:
        """What it holds: a part that was the end of the file once is shorter than others."""
        cut = self.range_of(part.number)
        return cut.within(cut.start + part.size)

    def number_at(self, offset: int) -> int:
        return bisect_right(_boundaries(self.base, self.sizing), offset)

    def ranges_for(self, size: int) -> list[PartRange]:
        """The parts of a file of `size` bytes; an empty file has none."""
        if size > self.capacity:
            raise ValueError(f"{size} bytes do not fit into {MAX_PARTS} parts")
        count = self.number_at(size - 1) if size else 0
        return [self.range_of(number).within(size) for number in range(1, count + 1)]


# A file that is finished already waits for nobody, so its parts need not be small: every part costs
# both sides a request. A crash still sends at most this much again for each part on the wire.
MAX_BACKLOG_PART_BYTES = 64 * MIB


def plan_for(size: int, base: int, sizing: PartSizing, *, is_backlog: bool = False) -> PartPlan:
    """The plan for a file that has `size` bytes now: equal parts must be chosen big enough at the
    start, because they cannot grow later."""
    if is_backlog and size > base:
        half = -(-size // (2 * MIB)) * MIB
        base = max(base, min(half, MAX_BACKLOG_PART_BYTES))
    if sizing is PartSizing.EQUAL:
        while PartPlan(base, sizing).capacity < 2 * size and base < MAX_PART_BYTES:
            base = min(base * 2, MAX_PART_BYTES)
    return PartPlan(base, sizing)


def infer_plan(found: Iterable[ListedPart | Part], today: PartPlan) -> PartPlan | None:
    """The plan by which these parts were cut: that of today, or one with another first size. None
    for an empty file, too, which has no parts."""
    parts = sorted(found, key=lambda part: part.number)
    if not parts:
        return None
    first, last = parts[0].size, parts[-1]
    candidates = [today]
    if MIN_PART_BYTES <= first <= MAX_PART_BYTES:
        other = PartSizing.EQUAL if today.sizing is PartSizing.GROW else PartSizing.GROW
        candidates += [PartPlan(first, today.sizing), PartPlan(first, other)]
    for plan in candidates:
        full = all(plan.range_of(part.number).size == part.size for part in parts[:-1])
        if full and last.size <= plan.range_of(last.number).size:
            return plan
    return None


def plan_noted_in(metadata: Mapping[str, str]) -> PartPlan | None:
    """How an object of ours was cut, as its user metadata tells."""
    try:
        base = int(metadata[META_PART_BASE])
        sizing = PartSizing(metadata[META_PART_SIZING])
    except (KeyError, ValueError):
        return None
    return PartPlan(base, sizing) if MIN_PART_BYTES <= base <= MAX_PART_BYTES else None
