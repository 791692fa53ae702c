"""Is what came out complete? ffmpeg's exit code and its end of file do not tell: both look well
after a truncated file or a dropped connection. Pure."""

from collections.abc import Iterator, Sequence

from cefmp4.encode.result import StoredTrack
from cefmp4.encode.source import AudioTrack


def duration_tolerance_s(duration_s: float) -> float:
    """One second or a fiftieth, whichever is more; but of a short clip never more than a tenth,
    which would hide the loss of half of it."""
    return min(max(1.0, duration_s * 0.02), max(0.1, duration_s * 0.1))


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


def audio_problems(tracks: Sequence[StoredTrack], sources: Sequence[AudioTrack]) -> Iterator[str]:
    """Only a loss counts: the encoder's last frame may reach beyond the end."""
    for track, source in zip(tracks, sources, strict=True):
        expected_s = source.start_s + (source.duration_s or 0.0)
        if not track.rows:
            yield f"{track.name} is empty"
        elif expected_s - track.end_s > duration_tolerance_s(expected_s):
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
