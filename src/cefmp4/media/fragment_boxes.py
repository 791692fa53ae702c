"""Reads the boxes of fragmented MP4: what an init segment declares, with the strings of a CODECS
attribute for it, and the samples of a fragment. Pure. Every length is checked against the bytes
that are there."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

from cefmp4.media.mp4_boxes import BrokenMediaError, child, children

_VISUAL_HEADER = 78
_AUDIO_HEADER = 28
_NON_SYNC = 0x10000
_MAX_SAMPLES = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackHeader:
    """What moov says of the only track."""

    kind: str  # video, audio
    codec: str  # as in a CODECS attribute
    timescale: int
    width: int = 0
    height: int = 0
    channels: int = 0
    nal_length: int = 0  # bytes of the length before each NAL unit
    defaults: tuple[int, int, int] = (0, 0, 0)  # duration, size and flags of a sample


@dataclass(frozen=True, slots=True)
class Sample:
    """`cto`: how much later than its decoding it is shown; `offset` counts from the moof."""

    offset: int
    size: int
    duration: int
    cto: int
    is_sync: bool


def read_header(moov: memoryview) -> TrackHeader:
    try:
        return _read_header(moov)
    except (struct.error, IndexError) as error:
        raise BrokenMediaError(f"the moov box is broken: {error}") from error


def _read_header(moov: memoryview) -> TrackHeader:
    media = child(moov, b"trak", b"mdia")
    mdhd = child(media, b"mdhd")
    (timescale,) = struct.unpack_from(">I", mdhd, 20 if mdhd[0] == 1 else 12)
    if not timescale:
        raise BrokenMediaError("the timescale is zero")
    trex = child(moov, b"mvex", b"trex")
    defaults = struct.unpack_from(">III", trex, 12)
    kind, entry = next(children(child(media, b"minf", b"stbl", b"stsd")[8:]), (b"", moov[:0]))
    read = _audio_header if bytes(child(media, b"hdlr")[8:12]) == b"soun" else _video_header
    return replace(read(kind.decode("latin-1"), entry, timescale), defaults=defaults)


def _video_header(kind: str, entry: memoryview, timescale: int) -> TrackHeader:
    width, height = struct.unpack_from(">HH", entry, 24)
    boxes = entry[_VISUAL_HEADER:]
    if kind in ("avc1", "avc3"):
        record = child(boxes, b"avcC")
        # Bytes 1 to 3 are profile, constraints and level.
        codec, nal_length = f"{kind}.{record[1:4].hex().upper()}", (record[4] & 3) + 1
    elif kind in ("hvc1", "hev1"):
        record = child(boxes, b"hvcC")
        codec, nal_length = _hevc_codec_string(kind, record), (record[21] & 3) + 1
    else:
        raise BrokenMediaError(f"a video of kind {kind!r}")
    return TrackHeader(
        kind="video",
        codec=codec,
        timescale=timescale,
        width=width,
        height=height,
        nal_length=nal_length,
    )


def _audio_header(kind: str, entry: memoryview, timescale: int) -> TrackHeader:
    if kind != "mp4a":
        raise BrokenMediaError(f"an audio of kind {kind!r}")
    codec, channels = _audio_codec_string(child(entry[_AUDIO_HEADER:], b"esds"))
    channels = channels or int.from_bytes(entry[16:18], "big")
    return TrackHeader(kind="audio", codec=codec, channels=channels, timescale=timescale)


def _hevc_codec_string(kind: str, record: memoryview) -> str:
    """`record`: an hvcC box. Spelled as ISO/IEC 14496-15 annex E says."""
    space = ("", "A", "B", "C")[record[1] >> 6]
    tier = "H" if record[1] & 0x20 else "L"
    compatibility = int(f"{int.from_bytes(record[2:6], 'big'):032b}"[::-1], 2)
    constraints = bytes(record[6:12]).rstrip(b"\0")
    parts = [
        kind,
        f"{space}{record[1] & 0x1F}",
        f"{compatibility:X}",
        f"{tier}{record[12]}",
        *(f"{byte:X}" for byte in constraints),
    ]
    return ".".join(parts)


def _audio_codec_string(esds: memoryview) -> tuple[str, int]:
    """`mp4a.40.2` or one of its kin, and the number of channels, which the box around it does not
    tell truly."""
    decoder = _descriptor(_descriptor(esds[4:], 0x03)[3:], 0x04)
    specific = _descriptor(decoder[13:], 0x05)
    object_type = specific[0] >> 3
    if object_type == 31:
        object_type = 32 + ((specific[0] & 7) << 3 | specific[1] >> 5)
        return f"mp4a.{decoder[0]:02x}.{object_type}", 0
    return f"mp4a.{decoder[0]:02x}.{object_type}", specific[1] >> 3 & 0xF


def _descriptor(data: memoryview, tag: int) -> memoryview:
    """The content of the first descriptor with that tag; its length is in groups of 7 bits."""
    at = 0
    while at < len(data):
        found, length, at = data[at], 0, at + 1
        while True:
            byte = data[at]
            at += 1
            length = length << 7 | byte & 0x7F
            if not byte & 0x80:
                break
        if found == tag:
            return data[at : at + length]
        at += length
    raise IndexError(f"no descriptor {tag}")


def read_fragment(moof: memoryview, header: TrackHeader) -> tuple[int, list[Sample]]:
    """Where the fragment starts, and its samples. `moof` is the content of the box."""
    try:
        traf = child(moof, b"traf")
        tfdt = child(traf, b"tfdt")
        (start,) = struct.unpack_from(">Q" if tfdt[0] == 1 else ">I", tfdt, 4)
        duration, size, flags = _fragment_defaults(child(traf, b"tfhd"), header)
        samples: list[Sample] = []
        for kind, trun in children(traf):
            if kind == b"trun":
                samples += _run(trun, duration, size, flags)
    except (struct.error, IndexError) as error:
        raise BrokenMediaError(f"a moof box is broken: {error}") from error
    if not samples:
        raise BrokenMediaError("a fragment without samples")
    return start, samples


def _fragment_defaults(tfhd: memoryview, header: TrackHeader) -> tuple[int, int, int]:
    """Duration, size and flags of samples that say nothing of their own."""
    (marks,) = struct.unpack_from(">I", tfhd, 0)
    at = 8 + 8 * bool(marks & 0x1) + 4 * bool(marks & 0x2)
    values = list(header.defaults)
    for position, mark in enumerate((0x8, 0x10, 0x20)):
        if marks & mark:
            (values[position],) = struct.unpack_from(">I", tfhd, at)
            at += 4
    return values[0], values[1], values[2]


def _run(trun: memoryview, duration: int, size: int, flags: int) -> Iterator[Sample]:
    marks, count = struct.unpack_from(">II", trun, 0)
    at, offset, first_flags = 8, 0, None
    if marks & 0x1:
        (offset,) = struct.unpack_from(">i", trun, at)
        at += 4
    if marks & 0x4:
        (first_flags,) = struct.unpack_from(">I", trun, at)
        at += 4
    fields = [mark for mark in (0x100, 0x200, 0x400, 0x800) if marks & mark]
    if count > _MAX_SAMPLES or at + 4 * len(fields) * count > len(trun):
        raise BrokenMediaError(f"a run of {count} samples does not fit")
    for number in range(count):
        values = dict(zip(fields, struct.unpack_from(f">{len(fields)}I", trun, at), strict=True))
        at += 4 * len(fields)
        own_flags = first_flags if number == 0 and first_flags is not None else flags
        taken = values.get(0x200, size)
        yield Sample(
            offset=offset,
            size=taken,
            duration=values.get(0x100, duration),
            cto=_signed(values.get(0x800, 0)),
            is_sync=not values.get(0x400, own_flags) & _NON_SYNC,
        )
        offset += taken


def _signed(value: int) -> int:
    """ffmpeg writes negative offsets; unsigned ones of version 0 never come near the sign bit."""
    return value - (1 << 32) if value >= 1 << 31 else value
