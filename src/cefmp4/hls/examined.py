"""What ffprobe tells of a source: more than the metadata document needs, since the filters, the
ladder and the choice between copying and encoding hang on it. Pure."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from cefmp4.hls.colors import BT709, Colors, is_rgb, meant
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
from cefmp4.media.source import UnusableSourceError
from cefmp4.model.rendition import Picture, shown_size, snap_frame_rate

_MAX_FRAME_RATE = 61  # above it, r_frame_rate is the tick of a clock
_MAX_SIDE = 16384
_STILLS = frozenset({"mjpeg", "png", "bmp", "gif", "tiff", "webp"})
_INTERLACED = frozenset({"tt", "bb", "tb", "bt"})
_RANGES = {"tv": False, "pc": True}
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
    """A source that can be encoded."""

    container: str
    video: VideoTrack
    audio: tuple[AudioTrack, ...]
    duration_s: float
    mastering: str = ""  # HDR10: as x265 spells it
    light_level: str = ""
    whole_s: float = 0.0  # what the container says of itself; 0 where that means nothing
    is_length_a_guess: bool = False  # the header does not tell that of the video
    notes: tuple[str, ...] = ()

    @property
    def pictures_end_s(self) -> float:
        return self.video.start_s + self.duration_s


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundOnly:
    """A recording without pictures."""

    container: str
    audio: tuple[AudioTrack, ...]
    duration_s: float
    is_length_a_guess: bool = False
    notes: tuple[str, ...] = ()


def left_out(index: int, codec: str, reason: str) -> str:
    return f"audio track {index} ({codec}) is left out: {reason}"


def audio_tracks(
    streams: list[dict[str, Any]], start: float, is_encrypted: Callable[[int], bool]
) -> tuple[tuple[AudioTrack, ...], tuple[str, ...]]:
    """Those that can be decoded, and why others cannot."""
    tracks, notes = [], []
    for stream in streams:
        if stream.get("codec_type") != "audio":
            continue
        index, name = count(stream.get("index")), codec_name(stream)
        if is_encrypted(index):
            notes.append(left_out(index, name, "it is encrypted"))
        elif not has_codec(stream):
            notes.append(left_out(index, name, NO_DECODER))
        elif count(stream.get("channels")):
            tracks.append(_audio(stream, start))
    return tuple(tracks), tuple(notes)


def video_stream(streams: list[dict[str, Any]]) -> dict[str, Any] | None:
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


def video_track(stream: dict[str, Any], start: float, frames: list[dict[str, Any]]) -> VideoTrack:
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
