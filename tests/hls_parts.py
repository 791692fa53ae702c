"""Fragments and stored tracks, made by hand."""

import struct

from cefmp4.hls import playlist
from cefmp4.hls.fragments import Fragment, FragmentParser, KeyFrame
from cefmp4.hls.result import SegmentRow, StoredTrack
from cefmp4.media.fragment_boxes import TrackHeader

TIMESCALE = 30000


def box(kind: str, *content: bytes) -> bytes:
    body = b"".join(content)
    return struct.pack(">I4s", 8 + len(body), kind.encode()) + body


def moov() -> bytes:
    avcc = box("avcC", bytes([1, 0x64, 0x00, 0x1F, 0xFF, 0xE0, 0]))
    entry = box("avc1", bytes(24), struct.pack(">HH", 320, 180), bytes(50), avcc)
    stsd = box("stsd", bytes(4), struct.pack(">I", 1), entry)
    mdhd = box("mdhd", bytes(12), struct.pack(">II", TIMESCALE, 0), bytes(4))
    hdlr = box("hdlr", bytes(8), b"vide", bytes(13))
    mdia = box("mdia", mdhd, hdlr, box("minf", box("stbl", stsd)))
    trex = box("trex", bytes(4), struct.pack(">IIIII", 1, 1, 1000, 100, 0x10000))
    return box("moov", box("trak", mdia), box("mvex", trex))


INIT = box("ftyp", b"iso5", bytes(4)) + moov()


def fragment(start: int, frames: int = 60, *, sizes: int = 10, is_sync: bool = True) -> bytes:
    flags = 0 if is_sync else 0x10000
    samples = b"".join(struct.pack(">I", sizes) for _ in range(frames))
    head = struct.pack(">II", 0x205, frames)
    tfhd = box("tfhd", struct.pack(">II", 0x20000, 1))
    tfdt = box("tfdt", struct.pack(">IQ", 0x1000000, start))
    length = 8 + 8 + len(tfhd) + len(tfdt) + 8 + len(head) + 8 + len(samples)
    trun = box("trun", head, struct.pack(">iI", length + 8, flags), samples)
    return box("moof", box("traf", tfhd, tfdt, trun)) + box("mdat", bytes(frames * sizes))


def parsed(data: bytes) -> list[Fragment]:
    parser = FragmentParser()
    found = fed(parser, data)
    parser.close()
    return found


def fed(parser: FragmentParser, data: bytes) -> list[Fragment]:
    """What it yields of bytes that all are there already."""
    found, left = [], memoryview(data)
    while left:
        count = min(len(left), len(parser.room))
        parser.room[:count] = left[:count]
        left = left[count:]
        if fragment := parser.took(count):
            found.append(fragment)
    return found


VIDEO = TrackHeader(
    kind="video", codec="hvc1.1.6.L93.90", timescale=30000, width=1280, height=720, nal_length=4
)
AUDIO = TrackHeader(kind="audio", codec="mp4a.40.2", timescale=48000, channels=2)


def track(
    *segments: tuple[float, int], name: str = "hevc-720p", header: TrackHeader = VIDEO, **of: str
) -> StoredTrack:
    """`segments`: seconds and bytes of each."""
    rows, at = [], 0.0
    for index, (seconds, size) in enumerate(segments):
        rows.append(
            SegmentRow(
                index=index,
                start=at,
                end=at + seconds,
                bytes=size,
                key=f"hls/s/{name}/{playlist.segment_name(index)}",
                bucket="b",
                size="1280x720",
                fps=30.0,
                codec=header.codec,
            )
        )
        at += seconds
    frame = KeyFrame(offset=0, size=5000, duration=60_000)
    return StoredTrack(
        name=name,
        folder=f"{name}.1",
        header=header,
        rows=tuple(rows),
        key_frames=tuple((frame,) for _ in rows),
        frames=round(at * 30),
        **of,
    )
