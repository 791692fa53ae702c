"""What the outermost layer of a file says about its own completeness, read in a few small reads.
ffprobe is content with files that lost their end; the sizes they declare are not."""

import os

from cefmp4.media.mp4_boxes import boxes, in_file

_AT_START = frozenset(
    (b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide", b"pnot", b"sidx")
)
_CONTENT = frozenset((b"moov", b"moof", b"mdat"))
# Enough for any ordinary file; a recording of many fragments is settled by its first one.
_MAX_BOXES = 1000

_EBML = b"\x1aE\xdf\xa3"
_SEGMENT = b"\x18S\x80g"


def find_problem(fd: int) -> str:
    """Why the file cannot be whole, "" where nothing speaks against it. The position of `fd`
    neither matters nor changes."""
    size = os.fstat(fd).st_size
    head = os.pread(fd, 64, 0)
    if not size:
        return "the file is empty"
    if not head.strip(b"\0") and not os.pread(fd, 64 * 1024, 0).strip(b"\0"):
        return "the file begins with nothing but zeros"
    if head[4:8] in _AT_START:
        return _examine_mp4(fd, size)
    if head.startswith(_EBML):
        return _matroska_problem(head, size)
    if head[:4] in (b"RIFF", b"RF64"):
        return _riff_problem(head, size)
    return ""


def _examine_mp4(fd: int, size: int) -> str:
    seen = set[bytes]()
    for number, box in enumerate(boxes(in_file(fd), 0, size)):
        if number == _MAX_BOXES:
            return ""  # it may still come
        missing = box.end - size
        if not _is_name(box.kind) or (missing > 0 and box.kind not in _CONTENT):
            break  # trailing bytes that only look like a box, zeros of a recorder, or padding
        seen.add(box.kind)
        if missing > 0:
            return _cut_off(box.kind, seen, missing)
        if {b"moov", b"moof"} <= seen:
            return ""
    if b"moov" in seen:
        return ""
    if b"moof" in seen:
        return "a media segment without its header: there is no moov"
    return "no moov: the recorder did not finish the file"


def _is_name(kind: bytes) -> bool:
    return all(0x20 <= byte < 0x7F or byte == 0xA9 for byte in kind)


def _cut_off(kind: bytes, seen: set[bytes], missing: int) -> str:
    name = kind.decode("latin-1")
    if b"moof" in seen and b"moov" in seen:
        return ""  # the fragments before the last one play
    if b"moov" not in seen and kind == b"mdat":
        return f"no moov, and mdat ends {missing} bytes behind the end of the file"
    return f"truncated: {name} ends {missing} bytes behind the end of the file"


def _matroska_problem(head: bytes, size: int) -> str:
    header_size, at = _ebml_number(head, 4)
    if header_size is None or head[at + header_size :][:4] != _SEGMENT:
        return ""
    start = at + header_size + 4
    segment_size, start = _ebml_number(head, start)
    # No size: the recorder was live or was killed, and such a file plays as far as it goes.
    if segment_size is None or start + segment_size <= size:
        return ""
    missing = start + segment_size - size
    return f"truncated: the segment ends {missing} bytes behind the end of the file"


def _ebml_number(data: bytes, at: int) -> tuple[int | None, int]:
    """A number of 1 to 8 bytes and the offset behind it; None where all its bits are set."""
    first = data[at] if at < len(data) else 0
    if not first:
        return None, at
    length = 9 - first.bit_length()
    mask = (1 << 7 * length) - 1
    value = int.from_bytes(data[at : at + length].ljust(length, b"\0"), "big") & mask
    return (None if value == mask else value), at + length


def _riff_problem(head: bytes, size: int) -> str:
    declared = int.from_bytes(head[4:8], "little")
    # Writers to pipes, killed ones, and RF64 leave 0 or all ones.
    if declared in (0, 0xFFFFFFFF) or declared + 8 <= size:
        return ""
    return f"truncated: the file should have {declared + 8 - size} bytes more"
