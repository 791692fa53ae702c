"""Which tracks of a file are encrypted, read in a few small reads. ffprobe does not tell: it shows
the codec that would be found after decryption, and its decoders make noise of what they get."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from cefmp4.media.mp4_boxes import Box, Read, boxes, in_file

_PATH = (b"mdia", b"minf", b"stbl", b"stsd")
# Common encryption (video, audio, text), and what iTunes sold.
_ENCRYPTED_ENTRIES = frozenset((b"encv", b"enca", b"enct", b"drms", b"drmi", b"drmt", b"aavd"))
_MAX_BOXES = 10_000
_MAX_TRACKS = 1000

_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_ENCRYPTION = (
    bytes.fromhex("fbb31122 23bd d211 b4b7 00a0c955fc6e".replace(" ", "")),
    bytes.fromhex("14e68a29 2226 174c b935 dae07ee9289c".replace(" ", "")),
)
_ASF_HEADER_BYTES = 64 * 1024

_TS_PACKET = 188
_TS_PACKETS = 2000
_NULL_PID = 0x1FFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Protection:
    """`tracks`: the places of those that are encrypted, counted as ffprobe counts streams."""

    is_whole: bool = False
    tracks: frozenset[int] = frozenset()

    @property
    def is_any(self) -> bool:
        return self.is_whole or bool(self.tracks)

    def covers(self, index: int) -> bool:
        return self.is_whole or index in self.tracks


def find_protection(fd: int) -> Protection:
    """The position of `fd` neither matters nor changes."""
    head = os.pread(fd, 64, 0)
    if head.startswith(_ASF):
        header = os.pread(fd, _ASF_HEADER_BYTES, 0)
        return Protection(is_whole=any(guid in header for guid in _ASF_ENCRYPTION))
    if head[:1] == b"G":
        return Protection(is_whole=_is_scrambled(os.pread(fd, _TS_PACKET * _TS_PACKETS, 0)))
    return Protection(tracks=frozenset(_encrypted_tracks(fd)))


def _is_scrambled(data: bytes) -> bool:
    """Most packets of a scrambled transport stream say so; its tables are in the clear."""
    scrambled = clear = 0
    for at in range(0, len(data) - _TS_PACKET + 1, _TS_PACKET):
        if data[at] != 0x47:
            return False
        if int.from_bytes(data[at + 1 : at + 3], "big") & _NULL_PID != _NULL_PID:
            is_scrambled = bool(data[at + 3] & 0xC0)
            scrambled, clear = scrambled + is_scrambled, clear + (not is_scrambled)
    return scrambled > clear


def _encrypted_tracks(fd: int) -> Iterator[int]:
    read = in_file(fd)
    moov = _follow(read, Box(b"", 0, os.fstat(fd).st_size), b"moov")
    if moov is None:
        return
    tracks = (box for box in _within(read, moov.start, moov.end) if box.kind == b"trak")
    for place, track in enumerate(islice(tracks, _MAX_TRACKS)):
        found = _follow(read, track, *_PATH)
        entries = _within(read, found.start + 8, found.end) if found else ()
        if any(entry.kind in _ENCRYPTED_ENTRIES for entry in entries):
            yield place


def _follow(read: Read, box: Box, *path: bytes) -> Box | None:
    """The first box at that path within another."""
    for name in path:
        inner = (one for one in _within(read, box.start, box.end) if one.kind == name)
        if (found := next(inner, None)) is None:
            return None
        box = found
    return box


def _within(read: Read, start: int, end: int) -> Iterator[Box]:
    for box in islice(boxes(read, start, end), _MAX_BOXES):
        yield Box(box.kind, box.start, min(box.end, end))
