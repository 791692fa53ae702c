"""Is what came out complete, and do sound and pictures end together? ffmpeg's exit code and its end
of file do not tell: both look well after a truncated file or a dropped connection. And players
stall where one of the two is over. Where they do not end together in the source, the sound is cut
or goes on in silence; only where far more is heard than seen, as of a screen on which nothing moved
any more, the last picture stays. Pure."""

import math
from collections.abc import Iterator, Mapping, Sequence

from cefmp4.hls.examined import AudioTrack, Examined, ExaminedVideo, left_out
from cefmp4.hls.ffmpeg import UNNOTICED_S
from cefmp4.hls.result import StoredTrack

_SHORTEST_SOUND_S = 0.1
_OVERHANG_S = 0.1  # of sound that is too much
_PRIMING_FRAMES = 2 * 1024

Stored = Mapping[str, StoredTrack | None]  # what came out, by name
Sound = tuple[StoredTrack | None, AudioTrack]  # what came out of it, and what was told of it


def duration_tolerance_s(duration_s: float) -> float:
    """One second or a fiftieth, whichever is more; but of a short clip never more than a tenth,
    which would hide the loss of half of it."""
    return min(max(1.0, duration_s * 0.02), max(0.1, duration_s * 0.1))


def problems(examined: Examined, stored: Stored) -> list[str]:
    found = list(audio_problems(_sounds(examined, stored), examined.end_s))
    if not isinstance(examined, ExaminedVideo):
        return found
    pictures = {name: track for name, track in stored.items() if name not in examined.heard}
    return [*video_problems(pictures, examined.pictures_end_s + examined.held_s), *found]


def video_problems(pictures: Stored, expected_s: float) -> Iterator[str]:
    tolerance_s = duration_tolerance_s(expected_s)
    for name, track in pictures.items():
        if not track:
            yield f"{name} is empty"
        elif abs(track.end_s - expected_s) > tolerance_s:
            yield f"{name} lasts {track.end_s:.2f} s of {expected_s:.2f} s"
    full = [track for track in pictures.values() if track]
    for track in full[1:]:
        yield from _disagreements(full[0], track)


def audio_problems(sounds: Sequence[Sound], end_s: float | None = None) -> Iterator[str]:
    """Only a loss counts: the encoder's last frame may reach beyond the end. `end_s`: where it was
    cut."""
    for track, told in sounds:
        expected_s = min(told.end_s or 0.0, math.inf if end_s is None else end_s)
        if track and expected_s - track.end_s > duration_tolerance_s(expected_s):
            yield f"{track.name} lasts {track.end_s:.2f} s of {expected_s:.2f} s"


def excess_s(stored: StoredTrack, end_s: float) -> float:
    """By how much a track is too long for players, or, below zero, too short; 0 where it fits.
    The last frame of an encoder may reach beyond the end, and its first ones come before it."""
    differs_s = stored.end_s - end_s
    allowed_s = _OVERHANG_S + _PRIMING_FRAMES / stored.header.timescale
    return differs_s if differs_s > allowed_s or differs_s < -UNNOTICED_S else 0.0


def notes_of(examined: Examined, stored: Stored) -> Iterator[str]:
    """What is not as it is in the source: of tracks of which nothing came out, although there
    should be something, and of what is done to the sound, by what the header tells. A microphone
    that was never on leaves a track without a sound in it, too."""
    yield from examined.notes
    for track, told in _sounds(examined, stored):
        if not track and (told.duration_s or 0.0) > _SHORTEST_SOUND_S:
            yield left_out(told.index, told.codec, "nothing of it can be decoded")
    if isinstance(examined, ExaminedVideo) and (held_s := examined.held_s):
        yield f"the last picture stays for {held_s:.2f} s: the sound outlasts the pictures"
    for sound in examined.heard.values():
        if abs(lacks_s := sound.lacks_s(examined.end_s)) > _OVERHANG_S:
            yield told_of(sound.index, -lacks_s)


def told_of(index: int, more_s: float) -> str:
    if more_s > 0:
        return f"audio track {index} is cut by {more_s:.2f} s: it outlasts the pictures"
    return f"audio track {index} ends in {-more_s:.2f} s of silence: the pictures outlast it"


def _sounds(examined: Examined, stored: Stored) -> list[Sound]:
    return [(stored.get(name), track) for name, track in examined.heard.items()]


def _disagreements(first: StoredTrack, other: StoredTrack) -> Iterator[str]:
    """Players switch between renditions at the borders of segments."""
    if len(first.rows) != len(other.rows):
        yield f"{first.name} has {len(first.rows)} segments, {other.name} {len(other.rows)}"
        return
    frame_s = 1 / max(first.frame_rate, 1.0)
    for mine, its in zip(first.rows, other.rows, strict=True):
        if abs(mine.start - its.start) > frame_s / 2 or abs(mine.end - its.end) > frame_s / 2:
            yield f"segment {mine.index} of {other.name} is not aligned with {first.name}"
            return
