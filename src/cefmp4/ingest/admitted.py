"""What whoever works on a stream has in hand."""

from dataclasses import dataclass

from cefmp4.ingest.record import StreamRecord
from cefmp4.model.object import StoredObject
from cefmp4.model.part import Part, PartRange
from cefmp4.model.stream import Stream
from cefmp4.recording.file import SourceFile


@dataclass(frozen=True, slots=True, kw_only=True)
class FormerGeneration:
    """The object this file was stored as before it changed: its unchanged parts are copied inside
    the store instead of being sent again."""

    stored: StoredObject
    stream: Stream
    parts: dict[int, Part]


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """A stream that is ours now, and the open file behind it. Whoever gets it closes the file and
    gives the lease back."""

    record: StreamRecord
    source: SourceFile
    former: FormerGeneration | None = None
    is_new: bool = False  # begun now, not taken up again

    def object_with(self, part: PartRange, crc64: int) -> StoredObject | None:
        """That of the former generation, where it has these very bytes as that part."""
        if self.former is None:
            return None
        there = self.former.parts.get(part.number)
        is_same = there is not None and (there.size, there.crc64) == (part.size, crc64)
        return self.former.stored if is_same else None
