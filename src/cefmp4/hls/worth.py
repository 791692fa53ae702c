"""What the bytes of a source are worth: how long it may claim to be, how many pictures are made of
it, and how long that may take. A clock that jumps by hours costs its maker a few bytes, and would
cost an encoder millions of copies of one picture. Pure."""

from fractions import Fraction

from cefmp4.media.source import UnusableSourceError
from cefmp4.model.part import MIB

_PICTURE_BYTES = 8  # no codec and no container need less for one that shows nothing new
_FREE_PICTURES = 20_000  # 11 minutes at 30 frames per second, whatever the size
_SLOWEST = Fraction(1)  # frames per second
_FREE_S = 200_000.0  # 55 hours, likewise
_FULL_BYTES = 32 * MIB  # from there on an encode may take all the time there is
_LEAST_S = 600.0


def check_length(size: int, length_s: float) -> None:
    """A picture a second, or so much sound, needs more bytes."""
    if length_s > max(_FREE_S, size / _PICTURE_BYTES):
        raise UnusableSourceError(
            f"it claims to be {length_s / 3600:,.0f} hours long, with {size:,} bytes"
        )


def is_thin(rate: Fraction, size: int, length_s: float) -> bool:
    """Whether so many pictures cannot be in so few bytes."""
    return float(rate) * length_s > _most_pictures(size)


def bearable_frame_rate(rate: Fraction, size: int, length_s: float) -> Fraction:
    """Less than `rate` where it is thin."""
    if not is_thin(rate, size, length_s):
        return rate
    return min(rate, max(_SLOWEST, Fraction(int(_most_pictures(size) / length_s))))


def check_reached(size: int, reached_s: float, told_s: float, rate: Fraction) -> None:
    """Of a source that goes on long after the end that it told."""
    if reached_s > told_s + _most_pictures(size) / float(rate):
        raise UnusableSourceError(
            f"it goes on after {reached_s / 3600:,.1f} hours; it claims to be {told_s:,.0f} s long"
        )


def longest_s(size: int, most_s: float) -> float:
    """How long an encode may take: `most_s`, or its part of it where there are few bytes."""
    return max(min(_LEAST_S, most_s), most_s * min(1.0, size / _FULL_BYTES))


def _most_pictures(size: int) -> int:
    return max(_FREE_PICTURES, size // _PICTURE_BYTES)
