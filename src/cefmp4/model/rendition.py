"""What is made of a video: the picture as probed, the renditions, and the rule of the ladder."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

RUNGS = (1080, 720, 540, 360)  # short sides, unless others are asked for
LOWEST_RUNG, HIGHEST_RUNG = 120, 4320
H264_RUNG = 720
MIN_SIDE = 16  # encoders refuse smaller pictures
_MIN_HEVC_SIDE = 64  # libx265 crashes on some that are smaller
MAX_FRAME_RATE = Fraction(60)
GOP_SECONDS = 2
_STANDARD_RATES = (
    Fraction(24000, 1001),
    Fraction(24),
    Fraction(25),
    Fraction(30000, 1001),
    Fraction(30),
    Fraction(48),
    Fraction(50),
    Fraction(60000, 1001),
    Fraction(60),
)
_SNAP = Fraction(1, 2000)  # 29.97 and 30 are one thousandth apart

# Average kbit/s of HEVC at 1920x1080, up to 30 frames a second; other sizes follow by their area.
_HEVC_1080_KBPS = 5800
_AREA_EXPONENT = 0.75
_FAST_FRAMES = 1.3
_H264_FACTOR = 1.5
_PEAK_OVER_AVERAGE = 2
_MIN_PEAK_KBPS = 300


class Codec(StrEnum):
    HEVC = "hevc"
    H264 = "h264"


class CodecChoice(StrEnum):
    """HEVC alone does not play in many browsers, hence one H.264 rung beside it by default."""

    BOTH = "hevc+h264"
    HEVC = "hevc"
    H264 = "h264"


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A video as it is to be shown: rotation and the shape of its pixels are applied already."""

    width: int
    height: int
    frame_rate: Fraction
    bit_depth: int = 8
    hdr: str | None = None  # PQ, HLG
    bit_rate: int | None = None  # bits per second of the source


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendition:
    """One rung. `name` is its folder; `peak_kbps` bounds any stretch of it."""

    name: str
    codec: Codec
    width: int
    height: int
    frame_rate: Fraction
    bit_depth: int
    hdr: str | None
    peak_kbps: int

    @property
    def gop_frames(self) -> int:
        return max(1, round(self.frame_rate * GOP_SECONDS))


def ladder(
    picture: Picture, choice: CodecChoice = CodecChoice.BOTH, rungs: Sequence[int] = RUNGS
) -> tuple[Rendition, ...]:
    """Largest first, as `rungs` are, HEVC before H.264. No rung is larger than the source."""
    short = min(picture.width, picture.height)
    is_plain = choice is CodecChoice.H264 or short < _MIN_HEVC_SIDE
    main = Codec.H264 if is_plain else Codec.HEVC
    sides = _short_sides(short, rungs)
    renditions = [_rendition(picture, side, main) for side in sides]
    if choice is CodecChoice.BOTH and not is_plain:
        renditions.append(_rendition(picture, min(sides[0], H264_RUNG), Codec.H264))
    return tuple(renditions)


def snap_frame_rate(rate: Fraction) -> Fraction:
    """The standard rate that is meant, never above 60: faster sources lose every other frame."""
    while rate > MAX_FRAME_RATE * (1 + _SNAP):
        rate /= 2
    nearest = min(_STANDARD_RATES, key=lambda standard: abs(standard - rate))
    if abs(nearest - rate) <= nearest * _SNAP:
        return nearest
    return min(rate, MAX_FRAME_RATE).limit_denominator(1001)


def shown_size(width: int, height: int, sar: Fraction, rotation: int) -> tuple[int, int]:
    """Square pixels, upright, at most one pixel lost on each side to make it even."""
    if sar > 0 and sar != 1 and Fraction(1, 4) <= sar <= 4:
        width = round(width * sar)
    if rotation % 180:
        width, height = height, width
    return _even(width), _even(height)


def _short_sides(short: int, rungs: Sequence[int]) -> tuple[int, ...]:
    """All that are asked for, or the source's own size and every rung clearly smaller than it."""
    if short >= rungs[0]:
        return tuple(rungs)
    return (short, *(rung for rung in rungs if rung * 10 <= short * 8))


def _rendition(picture: Picture, side: int, codec: Codec) -> Rendition:
    short = min(picture.width, picture.height)
    width = _even(Fraction(picture.width * side, short))
    height = _even(Fraction(picture.height * side, short))
    # An H.264 rung is there for players that cannot do more than 8 bits of SDR.
    is_plain = codec is Codec.H264
    return Rendition(
        name=f"{codec}-{side}p",
        codec=codec,
        width=width,
        height=height,
        frame_rate=picture.frame_rate,
        bit_depth=8 if is_plain else min(picture.bit_depth, 10),
        hdr=None if is_plain else picture.hdr,
        peak_kbps=_peak_kbps(picture, width, height, codec),
    )


def _peak_kbps(picture: Picture, width: int, height: int, codec: Codec) -> int:
    share = width * height / (1920 * 1080)
    average = float(_HEVC_1080_KBPS * share**_AREA_EXPONENT)
    average *= _FAST_FRAMES if picture.frame_rate > 30 else 1.0
    average *= _H264_FACTOR if codec is Codec.H264 else 1.0
    if picture.bit_rate:
        # More bits than the source has cannot make it better.
        average = min(average, picture.bit_rate / 1000 * 1.2)
    return max(_MIN_PEAK_KBPS, round(average * _PEAK_OVER_AVERAGE))


def _even(length: int | Fraction) -> int:
    return max(MIN_SIDE, int(length) // 2 * 2)
