"""The command lines of ffmpeg and ffprobe. Pure: what is asked for in, arguments out.

Inputs see one file or one object and nothing else; outputs are pipes."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from cefmp4.hls.encoder_options import (
    VideoOut,
    color_bitstream_filter,
    encoder_options,
    pixel_format,
)
from cefmp4.hls.filters import ImagesOut, Input, filter_graph, stills_graph, wave_graph
from cefmp4.model.rendition import Codec

SEGMENT_SECONDS = 6
AUDIO_KBPS = 128
AUDIO_RATE = 48000

# Containers that hold their own media. Never formats that name other files or servers.
_CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpegts,mpeg,mpegvideo,avi,flv,mxf,gxf,asf,dv,ivf,nut,"
    "h264,hevc,av1,obu,ogg,wav,w64,flac,mp3,aac,ac3,eac3,caf,aiff,amr"
)
_FRAGMENTED = "+empty_moov+default_base_moof+delay_moov+skip_trailer"
_VIDEO_FLAGS = f"+frag_keyframe{_FRAGMENTED}+negative_cts_offsets"
# A dropped connection goes on where it was; without these ffmpeg calls the rest of the file gone
# and itself successful.
_RECONNECT = (
    *("-reconnect", "1", "-reconnect_on_network_error", "1"),
    *("-reconnect_on_http_error", "429,5xx", "-reconnect_delay_max", "8"),
    *("-rw_timeout", "20000000"),
)
_NOISE = re.compile(
    r"\[[^\]]*@ 0x[0-9a-f]+\]\s*|\[(?:panic|fatal|error|warning)\]\s*|^\[\w+\]\s*|"
    r"file:/proc/self/fd/\d+:?\s*|https?://\S+"
)
_REMARK = re.compile(r"\[warning\]")

# With the first pictures, which know more of themselves than the header does.
HEADER_QUESTIONS = (
    *("-show_format", "-show_streams", "-read_intervals", "%+#16"),
    *("-show_entries", "frame=stream_index,interlaced_frame"),
)
CLOCK_QUESTIONS = ("-show_entries", "packet=stream_index,dts_time")


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioOut:
    """`end_s`: nothing is heard after it; `is_padded`: but something until then."""

    fd: int
    index: int
    is_copy: bool
    end_s: float | None = None
    is_padded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WaveOut:
    fd: int
    duration_s: float


def probe_command(
    ffprobe: str,
    argument: str,
    questions: Sequence[str],
    *,
    is_remote: bool,
    form: str = "json",
) -> list[str]:
    return [
        ffprobe,
        *("-hide_banner", "-v", "error"),
        *_cage(is_remote),
        *questions,
        *("-of", form, "-i", argument),
    ]


def packet_questions(index: int, interval: str) -> tuple[str, ...]:
    return (
        *("-select_streams", str(index), "-read_intervals", interval),
        *("-show_entries", "packet=pts_time,flags"),
    )


def first_frame_questions(index: int) -> tuple[str, ...]:
    return ("-select_streams", str(index), "-read_intervals", "%+#1", "-show_frames")


def encode_command(
    ffmpeg: str,
    source: Input,
    videos: Sequence[VideoOut],
    audios: Sequence[AudioOut],
    images: ImagesOut | None = None,
) -> list[str]:
    """One ffmpeg for all renditions: it decodes once."""
    arguments = [*_start(ffmpeg), *_input(source)]
    arguments += ["-filter_complex", filter_graph(source, videos, images)]
    for position, video in enumerate(videos):
        arguments += ["-map", f"[v{position}]", *_plain(), *encoder_options(video)]
        arguments += ["-f", "mp4", "-movflags", _VIDEO_FLAGS, f"pipe:{video.fd}"]
    for audio in audios:
        arguments += _audio(audio)
    if images:
        arguments += _images(images)
    return arguments


def copy_command(
    ffmpeg: str, source: Input, video: VideoOut, audios: Sequence[AudioOut]
) -> list[str]:
    """Nothing is decoded but audio that is not AAC."""
    options = ["-tag:v", "hvc1"] if video.codec is Codec.HEVC else []
    if not source.are_colors_told:
        options += ["-bsf:v", color_bitstream_filter(video.codec, source.colors)]
    arguments = [*_start(ffmpeg), *_input(source)]
    arguments += ["-map", f"0:{source.video}", *_plain(), "-c:v", "copy", *options]
    arguments += ["-f", "mp4", "-movflags", _VIDEO_FLAGS, f"pipe:{video.fd}"]
    for audio in audios:
        arguments += _audio(audio)
    return arguments


def stills_command(ffmpeg: str, source: Input, images: ImagesOut) -> list[str]:
    """For a copy, which decodes nothing: from its standard input, one picture per thumbnail."""
    own = ("-protocol_whitelist", "pipe", "-f", "mp4", "-ignore_editlist", "1", "-i", "pipe:0")
    graph = stills_graph(source, images.plan)
    return [*_start(ffmpeg), *own, "-filter_complex", graph, *_images(images)]


def sound_command(
    ffmpeg: str, source: Input, audios: Sequence[AudioOut], wave: WaveOut | None = None
) -> list[str]:
    """Sound alone; and perhaps a picture of the first of its tracks."""
    arguments = [*_start(ffmpeg), *_input(source)]
    if wave:
        arguments += ["-filter_complex", wave_graph(audios[0].index, wave.duration_s)]
        arguments += ["-map", "[wave]", *_picture(wave.fd)]
    for audio in audios:
        arguments += _audio(audio)
    if source.video >= 0:
        # The clock of a transport stream starts with the first of the streams that are used.
        arguments += ["-map", f"0:{source.video}", "-c:v", "copy", "-f", "null", "-"]
    return arguments


def encoder_probe_command(ffmpeg: str, video: VideoOut) -> list[str]:
    """A few real frames with the job's own options: neither a list of encoders nor a list of
    devices tells whether a session can be opened."""
    depth = video.rendition.bit_depth if video.rendition else 8
    return [
        *(ffmpeg, "-nostdin", "-hide_banner", "-v", "error", "-f", "lavfi"),
        *("-i", "color=black:s=256x256:r=30", "-frames:v", "8"),
        *("-pix_fmt", pixel_format(video.encoder, depth)),
        *encoder_options(video),
        *("-f", "null", "-"),
    ]


def _start(ffmpeg: str) -> list[str]:
    return [
        *(ffmpeg, "-nostdin", "-hide_banner", "-y", "-v", "repeat+level+warning", "-nostats"),
        *("-progress", "pipe:1", "-stats_period", "0.5"),
    ]


def _input(source: Input) -> list[str]:
    return [*_cage(source.is_remote), "-i", source.argument]


def _cage(is_remote: bool) -> list[str]:
    protocols = "http,tcp" if is_remote else "file"
    reconnect = _RECONNECT if is_remote else ()
    return [*reconnect, "-protocol_whitelist", protocols, "-format_whitelist", _CONTAINERS]


def _plain() -> list[str]:
    return ["-map_metadata", "-1", "-map_chapters", "-1"]


def _audio(audio: AudioOut) -> list[str]:
    steps = ["aresample=async=1:first_pts=0"]
    if audio.end_s is not None:
        steps += [f"apad=whole_dur={audio.end_s:.6f}"] if audio.is_padded else []
        steps.append(f"atrim=end={audio.end_s:.6f}")
    encoded = [
        *("-af", ",".join(steps), "-c:a", "aac", "-b:a", f"{AUDIO_KBPS}k"),
        *("-ac", "2", "-ar", str(AUDIO_RATE)),
    ]
    copied = ["-c:a", "copy", *(() if audio.end_s is None else ("-t", f"{audio.end_s:.6f}"))]
    return [
        *("-map", f"0:{audio.index}", *_plain()),
        *(copied if audio.is_copy else encoded),
        *("-f", "mp4", "-movflags", _FRAGMENTED),
        *("-frag_duration", str(SEGMENT_SECONDS * 1_000_000), f"pipe:{audio.fd}"),
    ]


def _images(images: ImagesOut) -> list[str]:
    arguments: list[str] = []
    for label, fd in (("sprite", images.sprite_fd), ("poster", images.poster_fd)):
        arguments += ["-map", f"[{label}]", *_picture(fd)]
    return arguments


def _picture(fd: int) -> list[str]:
    jpeg = ("-frames:v", "1", "-c:v", "mjpeg", "-q:v", "4")
    return [*jpeg, "-f", "image2pipe", f"pipe:{fd}"]


def last_line(stderr: str) -> str:
    """What ffmpeg said last, without addresses, descriptors and signed URLs."""
    told = stderr.splitlines()
    graver = [line for line in told if line.strip() and not _REMARK.search(line)]
    lines = [_NOISE.sub("", line).strip() for line in graver or told]
    said = [line for line in lines if line]
    if any("not on whitelist" in line for line in said):
        return "it is not a recording: a playlist, a script or another format we do not open"
    return "".join(c if c.isprintable() else "?" for c in said[-1])[:200] if said else ""
