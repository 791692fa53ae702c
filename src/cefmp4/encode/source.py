"""What an encode reads, and what ffprobe tells of it: more than the metadata document needs, since
the filters, the ladder and the choice between copying and encoding hang on it."""

import json
import re
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from cefmp4 import proc
from cefmp4.encode import ffmpeg
from cefmp4.encode.answers import count, hdr10, number, ratio, rows, table, text
from cefmp4.errors import PermanentError, ServerUnreachableError, TransientError
from cefmp4.model.rendition import Picture, shown_size, snap_frame_rate

_MAX_ANSWER_BYTES = 32 * 1024 * 1024
_MAX_FRAME_RATE = 61  # above it, r_frame_rate is the tick of a clock
_MAX_SIDE = 16384
_HDR = {"smpte2084": "PQ", "arib-std-b67": "HLG"}
_UNREACHABLE = re.compile(
    r"HTTP error|Connection|timed out|Server returned|Input/output error|Network|resolve",
    re.IGNORECASE,
)
_MISSING = re.compile(r"(HTTP error|Server returned) (404|410)")
_REFUSED = re.compile(r"(HTTP error|Server returned) 4")
_CLOCKS_THAT_JUMP = frozenset({"mpegts", "mpeg"})
_STILLS = frozenset({"mjpeg", "png", "bmp", "gif", "tiff", "webp"})
_INTERLACED = frozenset({"tt", "bb", "tb", "bt"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Ffprobe:
    """The program, and what a hostile file may cost."""

    program: str = "ffprobe"
    timeout_s: float = 30.0
    memory_bytes: int | None = None  # of address space


class UnusableSourceError(PermanentError):
    """There is nothing in the source that HLS could be made of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HlsSource:
    """A local file by its open descriptor, so that a rename changes nothing, or a presigned URL."""

    fd: int | None = None
    url: str = field(default="", repr=False)  # it carries a signature

    @property
    def pass_fds(self) -> tuple[int, ...]:
        return () if self.fd is None else (self.fd,)

    @property
    def argument(self) -> str:
        return self.url or f"file:/proc/self/fd/{self.fd}"


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
    color: tuple[str, str, str]  # primaries, transfer, matrix
    start_s: float
    duration_s: float | None
    picture: Picture
    is_mirrored: bool = False
    is_fast: bool = False  # more frames than a rendition may have


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


async def examine(source: HlsSource, ffprobe: Ffprobe) -> Examined:
    """Raises UnusableSourceError where the bytes are the reason, TransientError where they are
    out of reach."""
    document = await _ask(source, ffprobe, ffmpeg.HEADER_QUESTIONS)
    container = table(document.get("format"))
    streams = [table(stream) for stream in rows(document.get("streams"))]
    start = number(container.get("start_time")) or 0.0
    video = _video(streams, start)
    whole = _whole_s(container, start)
    duration = video.duration_s or max(0.0, whole - video.start_s)
    if not duration:
        end = await _measure(source, video.index, ffprobe, start)
        duration = max(0.04, end - video.start_s)
    form = text(container.get("format_name"))
    is_stream = form in _CLOCKS_THAT_JUMP
    mastering, light = "", ""
    if video.picture.hdr == "PQ":
        questions = ffmpeg.first_frame_questions(video.index)
        answer = await _ask(source, ffprobe, questions)
        mastering, light = hdr10(answer)
    return Examined(
        container=str(container.get("format_name") or ""),
        video=video,
        audio=tuple(_audio(stream, start) for stream in streams if _is_audio(stream)),
        duration_s=duration,
        mastering=mastering,
        light_level=light,
        whole_s=0.0 if is_stream else whole,
        is_length_a_guess=is_stream or not video.duration_s or form == "asf",
    )


async def packets(
    source: HlsSource, index: int, interval: str, ffprobe: Ffprobe
) -> list[tuple[float, str]]:
    """Time and flags of the packets in an interval, in the order of the file."""
    questions = ffmpeg.packet_questions(index, interval)
    document = await _ask(source, ffprobe, questions)
    found = []
    for packet in map(table, rows(document.get("packets"))):
        at = number(packet.get("pts_time"))
        if at is not None:
            found.append((at, str(packet.get("flags") or "")))
    return found


async def _ask(source: HlsSource, ffprobe: Ffprobe, questions: tuple[str, ...]) -> dict[str, Any]:
    said = await answer(source, ffprobe, questions)
    try:
        document = json.loads(said.decode("utf-8", "replace"))
    except ValueError as error:
        raise UnusableSourceError("ffprobe's answer makes no sense") from error
    return table(document)


async def answer(
    source: HlsSource, ffprobe: Ffprobe, questions: tuple[str, ...], form: str = "json"
) -> bytes:
    """What ffprobe prints. Raises as `examine` does."""
    program, is_remote = ffprobe.program, bool(source.url)
    done = await proc.run(
        ffmpeg.probe_command(program, source.argument, questions, is_remote=is_remote, form=form),
        timeout_s=ffprobe.timeout_s,
        memory_bytes=ffprobe.memory_bytes,
        max_output_bytes=_MAX_ANSWER_BYTES,
        pass_fds=source.pass_fds,
    )
    if done.timed_out:
        raise TransientError("ffprobe did not end in time")
    if not done.is_ok:
        if source.url:
            check_reached(done.stderr_tail)
        reason = ffmpeg.last_line(done.stderr_tail) or "ffprobe finds no media in it"
        raise UnusableSourceError(f"it cannot be read: {reason}")
    return done.stdout


def check_reached(said: str) -> None:
    """Raises what an ffmpeg or ffprobe that failed says of the server it read from, if anything."""
    if _MISSING.search(said):
        raise UnusableSourceError("there is no such object")
    if _UNREACHABLE.search(said):
        kind = TransientError if _REFUSED.search(said) else ServerUnreachableError
        raise kind(f"the source is out of reach: {ffmpeg.last_line(said)}")


def _whole_s(container: dict[str, Any], start: float) -> float:
    """0 where the header does not tell. Matroska tells when it ends, not how long it lasts."""
    told = number(container.get("duration")) or 0.0
    return max(0.0, told - start if "matroska" in text(container.get("format_name")) else told)


async def _measure(source: HlsSource, index: int, ffprobe: Ffprobe, start: float) -> float:
    """From the last packets: a recorder that was killed leaves no duration in the header."""
    last = await packets(source, index, "9999999%", ffprobe)
    end = max((at for at, _ in last), default=start) - start
    if not last or end < 0:
        raise UnusableSourceError("its duration cannot be found out")
    return max(end, 0.04)


def _is_audio(stream: dict[str, Any]) -> bool:
    return stream.get("codec_type") == "audio" and bool(count(stream.get("channels")))


def _video(streams: list[dict[str, Any]], start: float) -> VideoTrack:
    """The first video that is neither the picture on a record sleeve nor, where there is another,
    made of still pictures: some cameras put a thumbnail before the recording."""
    videos = [
        stream
        for stream in streams
        if stream.get("codec_type") == "video"
        and not table(stream.get("disposition")).get("attached_pic")
    ]
    if not videos:
        raise UnusableSourceError("there is no video in it")
    moving = [stream for stream in videos if text(stream.get("codec_name")) not in _STILLS]
    return _video_track((moving or videos)[0], start)


def _video_track(stream: dict[str, Any], start: float) -> VideoTrack:
    width, height = count(stream.get("width")), count(stream.get("height"))
    if not (0 < width <= _MAX_SIDE and 0 < height <= _MAX_SIDE):
        raise UnusableSourceError(f"its picture is {width} x {height}")
    sar, rotation = ratio(stream.get("sample_aspect_ratio"), ":"), _rotation(stream)
    is_interlaced = text(stream.get("field_order")) in _INTERLACED
    shown = shown_size(width, height, sar or Fraction(1), rotation)
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
        rotation=rotation,
        is_interlaced=is_interlaced,
        color=(text(stream.get("color_primaries")), transfer, text(stream.get("color_space"))),
        start_s=max(0.0, (number(stream.get("start_time")) or start) - start),
        duration_s=_duration(stream),
        picture=Picture(
            width=shown[0],
            height=shown[1],
            frame_rate=snap_frame_rate(frame_rate),
            bit_depth=_bit_depth(stream),
            hdr=_HDR.get(transfer),
            bit_rate=count(stream.get("bit_rate")) or None,
        ),
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


def _rotation(stream: dict[str, Any]) -> int:
    for entry in map(table, rows(stream.get("side_data_list"))):
        if (degrees := number(entry.get("rotation"))) is not None:
            return round(-degrees / 90) * 90 % 360
    return 0


def _is_mirrored(stream: dict[str, Any]) -> bool:
    for entry in map(table, rows(stream.get("side_data_list"))):
        numbers = re.findall(r"-?\d+", re.sub(r"\d+:", "", str(entry.get("displaymatrix") or "")))
        if len(numbers) == 9:
            a, b, c, d = (int(numbers[at]) for at in (0, 1, 3, 4))
            return a * d - b * c < 0
    return False
