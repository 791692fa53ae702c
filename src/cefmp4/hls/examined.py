"""What is in a source: anything that HLS can be made of, and what is it like? That is more than the
metadata document needs, since the filters, the ladder and the choice between copying and encoding
hang on it."""

import asyncio
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from cefmp4.hls.colors import BT709, Colors, is_rgb, meant
from cefmp4.media.ffprobe import LAST_PACKETS, Ffprobe
from cefmp4.media.ffprobe_json import (
    codec_name,
    count,
    has_codec,
    hdr,
    number,
    ratio,
    rotation,
    table,
    tables,
    text,
)
from cefmp4.media.protection import Protection, find_protection
from cefmp4.media.source import MediaSource, UnusableSourceError
from cefmp4.model.rendition import Picture, shown_size, snap_frame_rate

MAX_CUT_S = 10.0  # more than that of sound, after the last picture, is a part of the recording
_MAX_HELD_S = 6 * 3600.0  # of a picture; what is heard later than that is cut
_MAX_AUDIO_TRACKS = 8
_MAX_FRAME_RATE = 61  # above it, r_frame_rate is the tick of a clock
_MAX_SIDE = 16384
_STILLS = frozenset({"mjpeg", "png", "bmp", "gif", "tiff", "webp"})
_INTERLACED = frozenset({"tt", "bb", "tb", "bt"})
_RANGES = {"tv": False, "pc": True}
_CLOCKS_THAT_JUMP = frozenset({"mpegts", "mpeg"})
_WITHOUT_LENGTH = frozenset({"aac", "mp3", "ac3", "eac3", "amr", "asf", "flv"})
_SHORTEST_S = 0.04
# With the first pictures, which know more of themselves than the header does.
_HEADER_QUESTIONS = (
    *("-show_format", "-show_streams", "-read_intervals", "%+#16"),
    *("-show_entries", "frame=stream_index,interlaced_frame"),
)
NO_DECODER = "this ffmpeg does not support its codec"


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioTrack:
    index: int
    codec: str
    profile: str
    channels: int
    language: str
    start_s: float
    duration_s: float | None
    has_header: bool = True  # one for all its packets

    @property
    def end_s(self) -> float | None:
        return None if self.duration_s is None else self.start_s + self.duration_s

    def lacks_s(self, end_s: float | None) -> float:
        """How much earlier than that it ends, below zero: later; 0 where either is unknown."""
        return 0.0 if end_s is None or self.end_s is None else end_s - self.end_s


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoTrack:
    index: int
    codec: str
    profile: str
    pix_fmt: str
    width: int
    height: int
    sar: Fraction
    rotation: int
    is_interlaced: bool
    color: Colors  # as told
    start_s: float
    duration_s: float | None
    picture: Picture
    is_full_range: bool | None = None  # as told
    is_mirrored: bool = False
    is_fast: bool = False  # more frames than a rendition may have

    @property
    def meant_colors(self) -> Colors:
        if is_rgb(self.pix_fmt) and not self.picture.hdr:
            return BT709  # it becomes that
        return meant(
            self.color,
            width=self.width,
            height=self.height,
            frame_rate=self.picture.frame_rate,
            hdr=self.picture.hdr is not None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """A source that can be encoded, of which perhaps only the sound is there."""

    audio: tuple[AudioTrack, ...]
    duration_s: float
    is_length_a_guess: bool = False  # the header does not tell it, of the pictures if there are any
    notes: tuple[str, ...] = ()

    @property
    def heard(self) -> dict[str, AudioTrack]:
        """The tracks that are made of it, by name."""
        return {f"audio-{n}": track for n, track in enumerate(self.audio[:_MAX_AUDIO_TRACKS])}

    @property
    def end_s(self) -> float | None:
        """When all of it is to end; None where nothing has to, or the header does not tell."""
        return self.duration_s if len(self.heard) > 1 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExaminedVideo(Examined):
    """Pictures, and perhaps sound."""

    video: VideoTrack
    hdr10: tuple[str, ...] = ()  # mastering display and light level, as x265 is told
    whole_s: float = 0.0  # what the container says of itself; 0 where that means nothing

    @property
    def pictures_end_s(self) -> float:
        return self.video.start_s + self.duration_s

    @property
    def outlasting_s(self) -> float:
        """How long the last picture has to stay; 0 where the sound is cut instead."""
        heard_s = max((track.end_s or 0.0 for track in self.audio), default=0.0)
        more_s = heard_s - self.pictures_end_s
        return min(more_s, _MAX_HELD_S) if more_s > MAX_CUT_S else 0.0

    @property
    def shown_s(self) -> float:
        """With the late start, and the last picture that stays."""
        return self.pictures_end_s + self.outlasting_s

    @property
    def held_s(self) -> float:
        """How long the last picture is made to stay by what the header tells."""
        return 0.0 if self.is_length_a_guess else self.outlasting_s

    @property
    def end_s(self) -> float | None:
        return None if self.is_length_a_guess else self.shown_s


async def examine(source: MediaSource, ffprobe: Ffprobe) -> Examined:
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
    audio, notes = _audio_tracks(streams, start, protection)
    pictures = _video_stream(streams)
    form, whole = text(container.get("format_name")), _whole_s(container, start)
    if pictures is None:
        if not audio:
            raise UnusableSourceError(
                notes[0] if notes else "there is neither video nor audio in it"
            )
        told = max(track.end_s or 0.0 for track in audio) or whole
        return Examined(
            audio=audio,
            duration_s=told or await _measure(source, audio[0].index, ffprobe, start),
            is_length_a_guess=form in _CLOCKS_THAT_JUMP | _WITHOUT_LENGTH,
            notes=notes,
        )
    index = count(pictures.get("index"))
    if protection.covers(index):
        raise UnusableSourceError("it is encrypted")
    if not has_codec(pictures):
        raise UnusableSourceError(f"codec {codec_name(pictures)} is not supported by this ffmpeg")
    # The first ones come with the header, unless the file begins with much else.
    frames, is_hdr10 = _frames_of(document, index), hdr(pictures) == "PQ"
    first = await _first_frame(source, ffprobe, index) if is_hdr10 or not frames else {}
    video = _video_track(pictures, start, frames or _frames_of(first, index))
    duration = video.duration_s or max(0.0, whole - video.start_s)
    if not duration:
        end = await _measure(source, index, ffprobe, start)
        duration = max(_SHORTEST_S, end - video.start_s)
    is_stream = form in _CLOCKS_THAT_JUMP
    return ExaminedVideo(
        video=video,
        audio=audio,
        duration_s=duration,
        hdr10=_hdr10(first) if is_hdr10 else (),
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


async def _measure(source: MediaSource, index: int, ffprobe: Ffprobe, start: float) -> float:
    """From the last packets: a recorder that was killed leaves no duration in the header."""
    last = await ffprobe.packets(source, index, LAST_PACKETS)
    end = max((at for at, _ in last), default=start) - start
    if not last or end < 0:
        raise UnusableSourceError("its duration cannot be found out")
    return max(end, _SHORTEST_S)


def left_out(index: int, codec: str, reason: str) -> str:
    return f"audio track {index} ({codec}) is left out: {reason}"


def _audio_tracks(
    streams: list[dict[str, Any]], start: float, protection: Protection
) -> tuple[tuple[AudioTrack, ...], tuple[str, ...]]:
    """Those that can be decoded, and why others cannot."""
    tracks, notes = [], []
    for stream in streams:
        if stream.get("codec_type") != "audio":
            continue
        index, name = count(stream.get("index")), codec_name(stream)
        if protection.covers(index):
            notes.append(left_out(index, name, "it is encrypted"))
        elif not has_codec(stream):
            notes.append(left_out(index, name, NO_DECODER))
        elif count(stream.get("channels")):
            tracks.append(_audio(stream, start))
    return tuple(tracks), tuple(notes)


def _video_stream(streams: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The first video that is neither the picture on a record sleeve nor, where there is another,
    made of still pictures: some cameras put a thumbnail before the recording."""
    videos = [
        stream
        for stream in streams
        if stream.get("codec_type") == "video"
        and not table(stream.get("disposition")).get("attached_pic")
    ]
    known = [stream for stream in videos if has_codec(stream)]
    moving = [stream for stream in known if text(stream.get("codec_name")) not in _STILLS]
    return next(iter(moving or known or videos), None)


def _video_track(stream: dict[str, Any], start: float, frames: list[dict[str, Any]]) -> VideoTrack:
    """`frames`: the first ones, as decoded. What they say of themselves is truer than the header,
    which of DV says nothing."""
    width, height = count(stream.get("width")), count(stream.get("height"))
    if not (0 < width <= _MAX_SIDE and 0 < height <= _MAX_SIDE):
        raise UnusableSourceError(f"its picture is {width} x {height}")
    sar, turned = ratio(stream.get("sample_aspect_ratio"), ":"), rotation(stream) or 0
    is_interlaced = (
        text(stream.get("field_order")) in _INTERLACED
        or text(stream.get("codec_name")) == "dvvideo"
        or any(count(frame.get("interlaced_frame")) for frame in frames)
    )
    shown = shown_size(width, height, sar or Fraction(1), turned)
    transfer = text(stream.get("color_transfer"))
    frame_rate = _frame_rate(stream, is_interlaced)
    return VideoTrack(
        index=count(stream.get("index")),
        codec=text(stream.get("codec_name")),
        profile=text(stream.get("profile")),
        pix_fmt=text(stream.get("pix_fmt")),
        width=width,
        height=height,
        sar=sar or Fraction(1),
        rotation=turned,
        is_interlaced=is_interlaced,
        color=(text(stream.get("color_primaries")), transfer, text(stream.get("color_space"))),
        start_s=max(0.0, (number(stream.get("start_time")) or start) - start),
        duration_s=_duration(stream),
        picture=Picture(
            width=shown[0],
            height=shown[1],
            frame_rate=snap_frame_rate(frame_rate),
            bit_depth=_bit_depth(stream),
            hdr=hdr(stream),
            bit_rate=count(stream.get("bit_rate")) or None,
        ),
        is_full_range=_RANGES.get(text(stream.get("color_range"))),
        is_mirrored=_is_mirrored(stream),
        is_fast=frame_rate > _MAX_FRAME_RATE,
    )


def _audio(stream: dict[str, Any], start: float) -> AudioTrack:
    return AudioTrack(
        index=count(stream.get("index")),
        codec=text(stream.get("codec_name")),
        profile=text(stream.get("profile")),
        channels=count(stream.get("channels")),
        language=text(table(stream.get("tags")).get("language")),
        start_s=max(0.0, (number(stream.get("start_time")) or start) - start),
        duration_s=_duration(stream),
        has_header=bool(count(stream.get("extradata_size"))),
    )


def _frame_rate(stream: dict[str, Any], is_interlaced: bool) -> Fraction:
    """Interlaced video may tell the rate of its fields; the average is that of its frames."""
    base, average = ratio(stream.get("r_frame_rate")), ratio(stream.get("avg_frame_rate"))
    if base and base <= _MAX_FRAME_RATE and not (is_interlaced and average):
        return base
    return average or base or Fraction(25)


def _duration(stream: dict[str, Any]) -> float | None:
    found = number(stream.get("duration"))
    clock = re.match(r"(\d+):(\d+):(\d+(?:\.\d+)?)$", text(_tag(stream, "duration")))
    if clock:  # Matroska
        found = int(clock[1]) * 3600 + int(clock[2]) * 60 + float(clock[3])
        # Most write down when the track ends; mkvmerge, which tells its name, how long it lasts.
        if _tag(stream, "_statistics_writing_app") is None:
            found -= number(stream.get("start_time")) or 0.0
    return found if found and found > 0 else None


def _tag(stream: dict[str, Any], name: str) -> object:
    tags = table(stream.get("tags"))
    return next((value for key, value in tags.items() if key.lower().startswith(name)), None)


def _bit_depth(stream: dict[str, Any]) -> int:
    found = re.search(r"p(?:0)?(9|10|12|14|16)(?:le|be)$", text(stream.get("pix_fmt")))
    return int(found[1]) if found else 8


def _is_mirrored(stream: dict[str, Any]) -> bool:
    for entry in tables(stream.get("side_data_list")):
        numbers = re.findall(r"-?\d+", re.sub(r"\d+:", "", str(entry.get("displaymatrix") or "")))
        if len(numbers) == 9:
            a, b, c, d = (int(numbers[at]) for at in (0, 1, 3, 4))
            return a * d - b * c < 0
    return False


def _hdr10(document: dict[str, Any]) -> tuple[str, ...]:
    told: dict[str, str] = {}
    frames = tables(document.get("frames"))
    for entry in (entry for frame in frames for entry in tables(frame.get("side_data_list"))):
        if "red_x" in entry:
            told["master-display"] = _mastering(entry)
        elif "max_content" in entry:
            light = f"{count(entry['max_content'])},{count(entry.get('max_average'))}"
            told["max-cll"] = light
    return tuple(f"{name}={told[name]}" for name in ("master-display", "max-cll") if name in told)


def _mastering(entry: dict[str, Any]) -> str:
    def units(name: str, scale: int) -> int:
        return round((ratio(entry.get(name)) or Fraction(0)) * scale)

    def point(letters: str, name: str) -> str:
        return f"{letters}({units(name + '_x', 50000)},{units(name + '_y', 50000)})"

    colors = (("G", "green"), ("B", "blue"), ("R", "red"), ("WP", "white_point"))
    light = f"L({units('max_luminance', 10000)},{units('min_luminance', 10000)})"
    return "".join(point(*color) for color in colors) + light
