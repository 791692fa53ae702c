"""What is sent of a file: the bytes that had these checksums when it was read."""

from collections.abc import Callable
from dataclasses import dataclass

from cefmp4.errors import RefusedError, SourceError
from cefmp4.model.part import PartPlan, PartRange, plan_for
from cefmp4.recording.digests import ShortFileError, combine_crcs, hash_range
from cefmp4.recording.file import SourceFile

_CHANGED = "the file changed while it was read"


@dataclass(frozen=True, slots=True)
class Content:
    """`parts`: each with its CRC-64. An empty file has none."""

    size: int
    plan: PartPlan
    parts: tuple[tuple[PartRange, int], ...]

    @property
    def crc64(self) -> int:
        return combine_crcs((crc64, cut.size) for cut, crc64 in self.parts)

    @property
    def is_one_piece(self) -> bool:
        return len(self.parts) <= 1

    def __str__(self) -> str:
        """For a note: the same for the same bytes, cut in the same way."""
        return f"{self.crc64:016x} {self.size} {self.plan.base} {self.plan.sizing}"


def read_content(source: SourceFile, today: PartPlan, is_stopped: Callable[[], bool]) -> Content:
    """Blocking. Raises SourceError where somebody writes to it meanwhile."""
    stamp = source.stamp()
    plan = plan_for(stamp.size, today.base, today.sizing)
    if stamp.size > plan.capacity:
        raise RefusedError(f"{stamp.size} bytes are more than an object can have")
    try:
        parts = [
            (cut, hash_range(source.fd, cut.start, cut.end, is_stopped=is_stopped))
            for cut in plan.ranges_for(stamp.size)
        ]
    except ShortFileError:
        raise SourceError(_CHANGED) from None
    if source.stamp() != stamp:
        raise SourceError(_CHANGED)
    return Content(stamp.size, plan, tuple(parts))
