"""Which tracks of a file are encrypted, read in a few small reads. ffprobe does not tell: it shows
the codec that would be found after decryption, and its decoders make noise of what they get."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

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
    size, track = os.fstat(fd).st_size, -1
    for kind, start, end in _boxes(fd, 0, size):
        if kind != b"moov":
            continue
        for inner, inner_start, inner_end in _boxes(fd, start, end):
            if inner != b"trak":
                continue
            track += 1
            if track >= _MAX_TRACKS:
                return
            if _has_encrypted_entry(fd, inner_start, inner_end):
                yield track
        return


def _has_encrypted_entry(fd: int, start: int, end: int) -> bool:
    for name in _PATH:
        found = next((box for box in _boxes(fd, start, end) if box[0] == name), None)
        if found is None:
            return False
        _, start, end = found
    return any(kind in _ENCRYPTED_ENTRIES for kind, _, _ in _boxes(fd, start + 8, end))


def _boxes(fd: int, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, and where the content begins and ends; up to what is no box."""
    for _ in range(_MAX_BOXES):
        if start >= end:
            return
        header = os.pread(fd, 16, start)
        length, kind = int.from_bytes(header[:4], "big"), header[4:8]
        content = start + 8
        if length == 1:
            length, content = int.from_bytes(header[8:16], "big"), start + 16
        elif length == 0:
            length = end - start
        if len(kind) < 4 or length < content - start:
            return
        yield kind, content, min(start + length, end)
        start += length
