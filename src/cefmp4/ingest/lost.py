"""A file whose descriptor failed, because it was renamed or replaced where our kernel does not see
it (below a FUSE mount, on a file server), and what is found under a name now: are they the same?"""

from cefmp4.errors import SourceError
from cefmp4.ingest.record import StreamRecord
from cefmp4.recording.digests import holds_crc
from cefmp4.recording.file import SourceFile
from cefmp4.recording.identity import sample


def take_up(source: SourceFile, record: StreamRecord, relpath: str) -> bool:
    """Goes on with the file at `relpath` if that has what was sent. Nothing hangs on it but what is
    sent again: all of the file is compared before it counts as stored. Blocking."""
    if not source.is_lost:
        return False
    try:
        with SourceFile.open(source.root, relpath) as there:
            return _is_it(there, source, record) and source.take_over(there)
    except (FileNotFoundError, SourceError, OSError):
        return False


def _is_it(there: SourceFile, source: SourceFile, record: StreamRecord) -> bool:
    """A writer patches one part or another; that one of them is the same tells the file."""
    parts = dict(record.parts)
    if not parts:
        return there.is_same_inode(source)
    for number in sample(sorted(parts)):
        part, start = parts[number], record.stream.plan.range_of(number).start
        if holds_crc(there.fd, start, part.size, part.crc64):
            return True
    return False
