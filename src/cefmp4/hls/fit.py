"""Sound and pictures end together, or players stall where one of them is over. Where they do not in
the source, the sound is cut or goes on in silence; only where far more is heard than seen, as of a
screen on which nothing moved any more, the last picture stays. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from cefmp4.hls.examined import AudioTrack, Examined
from cefmp4.hls.result import StoredTrack

MAX_CUT_S = 10.0  # more than that of sound is a part of the recording
MAX_HELD_S = 6 * 3600.0  # of a picture; what is heard later than that is cut
UNNOTICED_S = 0.3  # of silence that is missing: players go on
_OVERHANG_S = 0.1  # of sound that is too much
_PRIMING_FRAMES = 2 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """`end_s`: when all of it is to end; None where the header does not tell."""

    end_s: float | None
    held_s: float = 0.0


def fit_of(examined: Examined) -> Fit:
    if examined.is_length_a_guess:
        return Fit(end_s=None)
    pictures_s = examined.pictures_end_s
    held_s = outlasting_s(examined)
    return Fit(end_s=pictures_s + held_s, held_s=held_s)


def outlasting_s(examined: Examined) -> float:
    """How long the last picture has to stay; 0 where the sound is cut instead."""
    heard_s = max((track.end_s or 0.0 for track in examined.audio), default=0.0)
    more_s = heard_s - examined.pictures_end_s
    return min(more_s, MAX_HELD_S) if more_s > MAX_CUT_S else 0.0


def is_short(track: AudioTrack, end_s: float | None) -> bool:
    """Too short to be copied as it is."""
    return end_s is not None and track.end_s is not None and end_s - track.end_s > UNNOTICED_S


def is_long(track: AudioTrack, end_s: float | None) -> bool:
    return end_s is not None and track.end_s is not None and track.end_s > end_s


def excess_s(stored: StoredTrack, end_s: float) -> float:
    """By how much a track is too long for players, or, below zero, too short; 0 where it fits.
    The last frame of an encoder may reach beyond the end, and its first ones come before it."""
    differs_s = stored.end_s - end_s
    allowed_s = _OVERHANG_S + _PRIMING_FRAMES / stored.header.timescale
    return differs_s if differs_s > allowed_s or differs_s < -UNNOTICED_S else 0.0


def notes_of(fit: Fit, audio: Sequence[AudioTrack]) -> tuple[str, ...]:
    """What is done to the sound, by what the header tells."""
    if fit.end_s is None:
        return ()
    held: tuple[str, ...] = ()
    if fit.held_s:
        held = (f"the last picture stays for {fit.held_s:.2f} s: the sound outlasts the pictures",)
    ends = [(track, track.end_s - fit.end_s) for track in audio if track.end_s is not None]
    told = [told_of(track.index, more_s) for track, more_s in ends if abs(more_s) > _OVERHANG_S]
    return (*held, *told)


def told_of(index: int, more_s: float) -> str:
    if more_s > 0:
        return f"audio track {index} is cut by {more_s:.2f} s: it outlasts the pictures"
    return f"audio track {index} ends in {-more_s:.2f} s of silence: the pictures outlast it"
