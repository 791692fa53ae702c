"""Is what came out complete? ffmpeg's exit code and its end of file do not tell: both look well
after a truncated file or a dropped connection. Pure."""

import math
from collections.abc import Iterator, Mapping, Sequence

from cefmp4.hls.examined import AudioTrack, Examined
from cefmp4.hls.fit import Fit
from cefmp4.hls.result import StoredTrack

_SHORTEST_SOUND_S = 0.1


def duration_tolerance_s(duration_s: float) -> float:
    """One second or a fiftieth, whichever is more; but of a short clip never more than a tenth,
    which would hide the loss of half of it."""
    return min(max(1.0, duration_s * 0.02), max(0.1, duration_s * 0.1))


Sound = tuple[StoredTrack | None, AudioTrack]  # what came out of it, and what was told of it


def problems(
    examined: Examined, stored: Mapping[str, StoredTrack | None], videos: int, fit: Fit
) -> list[str]:
    """`stored`: what came out, by name, of which the first `videos` are pictures."""
    tracks = list(stored.items())
    pictures = [track for _, track in tracks[:videos] if track]
    sounds = zip((track for _, track in tracks[videos:]), examined.audio, strict=False)
    return [
        *(f"{name} is empty" for name, track in tracks[:videos] if not track),
        *video_problems(pictures, examined.pictures_end_s + fit.held_s),
        *audio_problems(list(sounds), fit.end_s),
    ]


def lost_sounds(sounds: Sequence[Sound]) -> list[AudioTrack]:
    """Those of which nothing came out. A microphone that was never on leaves a track without a
    sound in it, too."""
    return [
        told
        for track, told in sounds
        if not (track and track.rows) and (told.duration_s or 0.0) > _SHORTEST_SOUND_S
    ]


def video_problems(tracks: Sequence[StoredTrack], expected_s: float) -> Iterator[str]:
    tolerance_s = duration_tolerance_s(expected_s)
    for track in tracks:
        if not track.rows:
            yield f"{track.name} is empty"
        elif abs(track.end_s - expected_s) > tolerance_s:
            yield f"{track.name} lasts {track.end_s:.2f} s of {expected_s:.2f} s"
    full = [track for track in tracks if track.rows]
    for track in full[1:]:
        yield from _disagreements(full[0], track)


def audio_problems(sounds: Sequence[Sound], end_s: float | None = None) -> Iterator[str]:
    """Only a loss counts: the encoder's last frame may reach beyond the end. `end_s`: where it was
    cut."""
    for track, told in sounds:
        expected_s = min(told.end_s or 0.0, math.inf if end_s is None else end_s)
        if track and track.rows and expected_s - track.end_s > duration_tolerance_s(expected_s):
            yield f"{track.name} lasts {track.end_s:.2f} s of {expected_s:.2f} s"


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
