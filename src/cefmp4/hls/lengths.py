"""How long the streams of a source are by all their packets: that is asked where what came out does
not have the length that the header led to expect."""

import asyncio
import math
from dataclasses import replace

from cefmp4.errors import PermanentError, TransientError
from cefmp4.hls.examined import AudioTrack, Examined, ExaminedVideo, VideoTrack
from cefmp4.media.ffprobe import Ffprobe
from cefmp4.media.ffprobe_json import count, number
from cefmp4.media.source import MediaSource

_MAX_STEP_S, _MAX_STEP_BACK_S = 10.0, 0.1  # as ffmpeg has it
_SCAN_TIMEOUT_S = 1800.0
_NEAR_THE_END_S = 1.0
_CLOCK_QUESTIONS = ("-show_entries", "packet=stream_index,dts_time")


async def remeasured(source: MediaSource, examined: Examined, ffprobe: Ffprobe) -> Examined:
    """With the lengths that a look at every packet finds: where a transport stream was cut, joined
    or begun anew, the last time stamp less the first is anything but its length, and others tell
    only how long the longest of their streams is. Beside pictures it takes, as ffmpeg does, a jump
    of the clock for no time at all. Itself, where nothing is found, or nothing reaches the end that
    was told."""
    may_jump = isinstance(examined, ExaminedVideo) and not examined.whole_s
    try:
        patient = replace(ffprobe, timeout_s=_SCAN_TIMEOUT_S)
        told = await patient.run(source, _CLOCK_QUESTIONS, form="csv=p=0")
    except (PermanentError, TransientError):
        return examined
    max_step_s = _MAX_STEP_S if may_jump else math.inf
    lengths = await asyncio.to_thread(lengths_of, told.stdout, max_step_s)
    if isinstance(examined, ExaminedVideo):
        return _with_pictures(examined, lengths)
    audio = [replace(t, duration_s=lengths.get(t.index, t.duration_s)) for t in examined.audio]
    return replace(examined, audio=tuple(audio))


def _with_pictures(examined: ExaminedVideo, lengths: dict[int, float]) -> ExaminedVideo:
    video, audio = examined.video, examined.audio
    tracks: list[VideoTrack | AudioTrack] = [video, *audio]
    ends = [track.start_s + lengths.get(track.index, 0.0) for track in tracks]
    if not lengths or max(ends) < examined.whole_s - _NEAR_THE_END_S:
        return examined
    return replace(
        examined,
        duration_s=lengths.get(video.index, examined.duration_s),
        audio=tuple(replace(track, duration_s=lengths.get(track.index)) for track in audio),
    )


def lengths_of(answer: bytes, max_step_s: float) -> dict[int, float]:
    """By stream. `answer`: a line with index and time for each packet. Pure."""
    lengths: dict[int, float] = {}
    last: dict[int, tuple[float, float]] = {}
    for line in answer.decode("ascii", "replace").splitlines():
        index, at = count(line.partition(",")[0]), number(line.partition(",")[2].strip(","))
        if at is None:
            continue
        before, step = last.get(index, (at, 0.0))
        if -_MAX_STEP_BACK_S <= at - before <= max_step_s:
            step = at - before
        lengths[index] = lengths.get(index, 0.0) + step
        last[index] = at, step
    return {index: length + last[index][1] for index, length in lengths.items()}
