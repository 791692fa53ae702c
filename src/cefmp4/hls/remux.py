"""Whether a source may be copied into HLS as it is. Some reasons against it are known from the
header, some from its first and last packets, and some show only while it is being copied."""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from cefmp4.errors import CefError
from cefmp4.hls.examined import AudioTrack, ExaminedVideo
from cefmp4.hls.fragments import Fragment
from cefmp4.media.fragment_boxes import Sample
from cefmp4.model.rendition import RUNGS, Codec, CodecChoice

MAX_KEY_FRAME_GAP_S = 6.5
DURATION_TOLERANCE_S = 0.25
HEAD_INTERVAL = "%+20"
_MAX_START_S = 0.1
_MAX_AUDIO_START_S = 0.045  # sooner than this before its picture, sound is not noticed
_PROFILES = {
    "h264": frozenset({"Constrained Baseline", "Baseline", "Main", "High"}),
    "hevc": frozenset({"Main"}),
}
# What a copy alone must be to serve every player that the choice is meant for.
_WANTED = {
    CodecChoice.BOTH: Codec.H264,
    CodecChoice.HEVC: Codec.HEVC,
    CodecChoice.H264: Codec.H264,
}
_PIXELS = frozenset({"yuv420p", "yuvj420p"})
_IDR = {"h264": frozenset({5}), "hevc": frozenset({19, 20})}
_PARAMETERS = {"h264": 7, "hevc": 33}
_FORBIDDEN, _ZEROS = 0x80, b"\0\0\0"
# As one expression, because every byte of a copy is looked at; twice over, it took longer than all
# else that is done to them here.
_ZEROS_OR_ESCAPED = re.compile(rb"\0\0(?:\0|\x03(?:\0\0\x03){3})")
_SLICES = {"h264": frozenset({1, 5}), "hevc": frozenset(range(32))}


class CopyRefusedError(CefError):
    """The source turned out not to fit while it was being copied."""


def reasons_against(
    source: ExaminedVideo, choice: CodecChoice, top_rung: int = RUNGS[0]
) -> tuple[str, ...]:
    """What the header says against a copy; empty where nothing does. What is larger than the
    highest rung gets a ladder."""
    video, held_s = source.video, source.outlasting_s
    wanted = _WANTED[choice]
    checks = (
        (video.codec in _PROFILES and video.codec != wanted, f"{wanted} is asked for as well"),
        (video.codec not in _PROFILES, f"its codec is {video.codec}"),
        (
            video.codec in _PROFILES and video.profile not in _PROFILES[video.codec],
            f"its profile is {video.profile}",
        ),
        (video.pix_fmt not in _PIXELS, f"its pixels are {video.pix_fmt}"),
        (video.is_interlaced, "it is interlaced"),
        (video.rotation != 0, f"it is rotated by {video.rotation} degrees"),
        (video.is_mirrored, "it is mirrored"),
        (video.is_fast, "it has more than 60 frames per second"),
        (video.picture.hdr is not None, f"it is {video.picture.hdr}"),
        (video.sar != 1, f"its pixels are not square ({video.sar})"),
        (bool(video.width % 2 or video.height % 2), "a side of it is odd"),
        (min(video.width, video.height) > top_rung, f"it is larger than {top_rung}p"),
        (video.start_s > _MAX_START_S, f"its video starts {video.start_s:.2f} s late"),
        (held_s > 0, f"its sound outlasts its pictures by {held_s:.2f} s"),
    )
    return tuple(reason for is_so, reason in checks if is_so)


def reasons_in_head(packets: Sequence[tuple[float, str]]) -> tuple[str, ...]:
    """`packets`: time and flags, in the order of the file, from its start."""
    keys = [at for at, flags in packets if "K" in flags]
    gaps = [after - before for before, after in pairwise(keys)]
    if packets and keys:
        gaps.append(max(at for at, _ in packets) - keys[-1])
    longest = max(gaps, default=0.0)
    checks = (
        (not packets or "K" not in packets[0][1], "it does not begin with a key frame"),
        (_has_discarded(packets), "an edit list cuts its start"),
        (longest > MAX_KEY_FRAME_GAP_S, f"its key frames are {longest:.1f} s apart"),
        (_leads(packets), "pictures are shown before the key frame that they follow"),
    )
    return tuple(reason for is_so, reason in checks if is_so)


def reasons_in_tail(packets: Sequence[tuple[float, str]]) -> tuple[str, ...]:
    return ("an edit list cuts its end",) if _has_discarded(packets) else ()


def may_copy_audio(track: AudioTrack) -> bool:
    """In a copy, sound begins at zero whenever it began: players overlook the empty edit that says
    otherwise. In a transport stream each packet has a header of its own, and may be of another kind
    than the one before; an init segment is of one kind."""
    fits = track.codec == "aac" and track.profile == "LC" and 1 <= track.channels <= 2
    return fits and track.has_header and track.start_s <= _MAX_AUDIO_START_S


class CopyWatch:
    """Looks at every fragment of a copy: each must begin with a picture from which a decoder can
    start, and show nothing from before it."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self.damaged = 0  # pictures that no decoder can take as they were made

    def check(self, fragment: Fragment) -> None:
        """An init segment has one set of parameters; players look at no other."""
        header = fragment.init.header
        length_s = fragment.duration / header.timescale
        if length_s > MAX_KEY_FRAME_GAP_S:
            raise CopyRefusedError(f"its key frames are {length_s:.1f} s apart")
        data, samples = fragment.data, fragment.samples
        pictures = [list(_nal_units(data, sample, header.nal_length)) for sample in samples]
        self.damaged += sum(any(_is_damaged(data, *unit) for unit in units) for units in pictures)
        at = 0
        for sample in samples:
            if at + sample.cto < samples[0].cto:
                raise CopyRefusedError("open groups of pictures: leading pictures at a key frame")
            at += sample.duration
        kinds = [self._kind_of(data[start]) for start, _ in pictures[0]]
        slice_kind = next((kind for kind in kinds if kind in _SLICES[self._codec]), None)
        if slice_kind not in _IDR[self._codec]:
            raise CopyRefusedError(f"open groups of pictures: a key frame of NAL type {slice_kind}")
        for kind, (start, end) in zip(kinds, pictures[0], strict=True):
            if kind == _PARAMETERS[self._codec] and data[start:end] not in fragment.init.data:
                raise CopyRefusedError("its size or its parameters change in the middle")

    def _kind_of(self, head: int) -> int:
        return head & 0x1F if self._codec is Codec.H264 else head >> 1 & 0x3F


def _nal_units(
    data: bytes | bytearray, picture: Sample, nal_length: int
) -> Iterator[tuple[int, int]]:
    """Where each of its units begins and ends. Raises CopyRefusedError where they are none: players
    stop at such a picture, and encoding it conceals it."""
    at, end = picture.offset, picture.offset + picture.size
    while at < end:
        start = at + nal_length
        at = start + int.from_bytes(data[at:start], "big")
        if at > end or at == start:
            raise CopyRefusedError("pictures of it are damaged")
        yield start, at


def _is_damaged(data: bytes | bytearray, start: int, end: int) -> bool:
    """What a disk or a network has damaged shows without decoding where it left zeros, which never
    follow each other within a NAL unit."""
    return bool(data[start] & _FORBIDDEN) or _has_zeros(data, start, end)


def _has_zeros(data: bytes | bytearray, start: int, end: int) -> bool:
    """Also as a filter that went over the unit escapes them; at its very end they are padding."""
    found = _ZEROS_OR_ESCAPED.search(data, start, end)
    if found is None or found[0] == _ZEROS:
        return found is not None
    rest = data[found.start() : end]
    return bool(rest.strip(b"\0\3")) or _ZEROS in rest


def _has_discarded(packets: Sequence[tuple[float, str]]) -> bool:
    return any("D" in flags for _, flags in packets)


def _leads(packets: Sequence[tuple[float, str]]) -> bool:
    """A packet after a key frame, in the order of decoding, that is shown before it."""
    key = None
    for at, flags in packets:
        if "K" in flags:
            key = at
        elif key is not None and at < key:
            return True
    return False
