"""What whoever works on a stream has in hand."""

import asyncio
from dataclasses import dataclass
from functools import partial

from cefmp4.errors import SourceError
from cefmp4.ingest.record import StreamRecord
from cefmp4.model.object import StoredObject
from cefmp4.model.part import Part, PartRange
from cefmp4.model.stream import Stream
from cefmp4.recording.digests import ShortFileError, hash_range
from cefmp4.recording.file import SourceFile

SAMPLES = 8  # parts that are read again


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

    async def is_overwritten(self) -> bool:
        """Of a file that is shorter than what was sent of it: was it cut off, which loses a
        recording, or was another recording written over it? Where all that was sent lay within a
        generation that is stored, nothing is lost, whatever happened: programs that write over a
        file in place make it shorter at the end. Elsewhere the bytes tell: of a file that was cut
        off, what is left is what was sent; writers patch a part or two, but not most of them. Where
        no whole part is left to compare, it counts as cut off."""
        stream = self.record.stream
        if self.former is not None and stream.sent_high <= self.former.stream.size:
            return True
        parts = sorted(self.record.parts.items())
        sent = [(stream.plan.place_of(part), part.crc64) for _, part in parts]
        left = [(place, crc64) for place, crc64 in sent if place.end <= stream.size]
        samples = left[:: max(1, len(left) // SAMPLES)]
        changed = 0
        for place, crc64 in samples:
            read = partial(hash_range, self.source.fd, place.start, place.end)
            try:
                changed += await asyncio.to_thread(read) != crc64
            except ShortFileError:
                raise SourceError("it became shorter while it was read") from None
        return changed * 2 > len(samples)
