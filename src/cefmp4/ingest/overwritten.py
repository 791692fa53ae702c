"""A file that is shorter than what was sent of it: was it cut off, which loses a recording, or was
another recording written over it?"""

import asyncio
from functools import partial

from cefmp4.errors import SourceError
from cefmp4.ingest.admitted import Admitted
from cefmp4.recording.digests import ShortFileError, hash_range

SAMPLES = 8  # parts that are read again


async def is_overwritten(admitted: Admitted) -> bool:
    """Where all that was sent lay within a generation that is stored, nothing is lost, whatever
    happened: programs that write over a file in place make it shorter at the end. Elsewhere the
    bytes tell: of a file that was cut off, what is left is what was sent; writers patch a part or
    two, but not most of them. Where no whole part is left to compare, it counts as cut off."""
    record, former, fd = admitted.record, admitted.former, admitted.source.fd
    stream = record.stream
    if former is not None and stream.sent_high <= former.stream.size:
        return True
    left = [
        part
        for number, part in sorted(record.parts.items())
        if stream.plan.range_of(number).start + part.size <= stream.size
    ]
    samples = left[:: max(1, len(left) // SAMPLES)]
    changed = 0
    for part in samples:
        start = stream.plan.range_of(part.number).start
        read = partial(hash_range, fd, start, start + part.size)
        try:
            changed += await asyncio.to_thread(read) != part.crc64
        except ShortFileError:
            raise SourceError("it became shorter while it was read") from None
    return changed * 2 > len(samples)
