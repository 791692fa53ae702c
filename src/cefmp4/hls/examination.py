"""Examines a source: is there anything in it that HLS can be made of, and what is it like?"""

import asyncio
from typing import Any

from cefmp4.hls.examined import (
    AudioTrack,
    Examined,
    SoundOnly,
    audio_tracks,
    video_stream,
    video_track,
)
from cefmp4.hls.lengths import packets
from cefmp4.media.ffprobe import LAST_PACKETS, Ffprobe
from cefmp4.media.ffprobe_json import (
    codec_name,
    count,
    has_codec,
    hdr10,
    number,
    table,
    tables,
    text,
)
from cefmp4.media.protection import Protection, find_protection
from cefmp4.media.source import MediaSource, UnusableSourceError

_CLOCKS_THAT_JUMP = frozenset({"mpegts", "mpeg"})
_WITHOUT_LENGTH = frozenset({"aac", "mp3", "ac3", "eac3", "amr", "asf", "flv"})
_SHORTEST_S = 0.04
# With the first pictures, which know more of themselves than the header does.
_HEADER_QUESTIONS = (
    *("-show_format", "-show_streams", "-read_intervals", "%+#16"),
    *("-show_entries", "frame=stream_index,interlaced_frame"),
)


async def examine(source: MediaSource, ffprobe: Ffprobe) -> Examined | SoundOnly:
    """Raises UnusableSourceError where the bytes are the reason, TransientError where they are
    out of reach."""
    protection = await _protection(source)
    try:
        document = await ffprobe.ask(source, _HEADER_QUESTIONS)
    except UnusableSourceError as error:
        raise UnusableSourceError(f"it cannot be read: {error}") from error
    container = table(document.get("format"))
    streams = tables(document.get("streams"))
    start = number(container.get("start_time")) or 0.0
    audio, notes = audio_tracks(streams, start, protection.covers)
    pictures = video_stream(streams)
    form, whole = text(container.get("format_name")), _whole_s(container, start)
    if pictures is None:
        if not audio:
            raise UnusableSourceError(_nothing(notes))
        duration = await _length_of_sound(source, audio, whole, ffprobe, start)
        return SoundOnly(
            container=form,
            audio=audio,
            duration_s=duration,
            is_length_a_guess=form in _CLOCKS_THAT_JUMP | _WITHOUT_LENGTH,
            notes=notes,
        )
    index = count(pictures.get("index"))
    if protection.covers(index):
        raise UnusableSourceError("it is encrypted")
    if not has_codec(pictures):
        raise UnusableSourceError(f"codec {codec_name(pictures)} is not supported by this ffmpeg")
    video = video_track(pictures, start, await _first_frames(source, ffprobe, document, index))
    duration = video.duration_s or max(0.0, whole - video.start_s)
    if not duration:
        end = await _measure(source, index, ffprobe, start)
        duration = max(_SHORTEST_S, end - video.start_s)
    is_stream = form in _CLOCKS_THAT_JUMP
    mastering, light = "", ""
    if video.picture.hdr == "PQ":
        mastering, light = hdr10(await _first_frame(source, ffprobe, index))
    return Examined(
        container=form,
        video=video,
        audio=audio,
        duration_s=duration,
        mastering=mastering,
        light_level=light,
        whole_s=0.0 if is_stream else whole,
        is_length_a_guess=is_stream or not video.duration_s or form == "asf",
        notes=notes,
    )


async def _protection(source: MediaSource) -> Protection:
    """Of an object that is read from the store it was found out when it was described."""
    if source.fd is None:
        return Protection()
    try:
        return await asyncio.to_thread(find_protection, source.fd)
    except OSError as error:
        raise UnusableSourceError(f"it cannot be read: {error.strerror}") from error


def _nothing(notes: tuple[str, ...]) -> str:
    return notes[0] if notes else "there is neither video nor audio in it"


async def _first_frames(
    source: MediaSource, ffprobe: Ffprobe, document: dict[str, Any], index: int
) -> list[dict[str, Any]]:
    """They come with the header, unless the file begins with much else."""
    own = _frames_of(document, index)
    if own:
        return own
    return _frames_of(await _first_frame(source, ffprobe, index), index)


async def _first_frame(source: MediaSource, ffprobe: Ffprobe, index: int) -> dict[str, Any]:
    questions = ("-select_streams", str(index), "-read_intervals", "%+#1", "-show_frames")
    return await ffprobe.ask(source, questions)


def _frames_of(document: dict[str, Any], index: int) -> list[dict[str, Any]]:
    frames = tables(document.get("frames"))
    return [frame for frame in frames if count(frame.get("stream_index")) == index]


def _whole_s(container: dict[str, Any], start: float) -> float:
    """0 where the header does not tell. Matroska tells when it ends, not how long it lasts."""
    told = number(container.get("duration")) or 0.0
    return max(0.0, told - start if "matroska" in text(container.get("format_name")) else told)


async def _length_of_sound(
    source: MediaSource,
    audio: tuple[AudioTrack, ...],
    whole: float,
    ffprobe: Ffprobe,
    start: float,
) -> float:
    told = max((track.end_s or 0.0 for track in audio), default=0.0) or whole
    return told or await _measure(source, audio[0].index, ffprobe, start)


async def _measure(source: MediaSource, index: int, ffprobe: Ffprobe, start: float) -> float:
    """From the last packets: a recorder that was killed leaves no duration in the header."""
    last = await packets(source, index, LAST_PACKETS, ffprobe)
    end = max((at for at, _ in last), default=start) - start
    if not last or end < 0:
        raise UnusableSourceError("its duration cannot be found out")
    return max(end, _SHORTEST_S)
