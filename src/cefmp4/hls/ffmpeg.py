"""The command lines of ffmpeg. Pure: what is asked for in, arguments out. Inputs see one file or
one object and nothing else; outputs are pipes."""

from collections.abc import Sequence
from dataclasses import dataclass

from cefmp4.hls.encoder_options import (
    VideoOut,
    color_bitstream_filter,
    encoder_options,
    pixel_format,
)
from cefmp4.hls.filters import ImagesOut, Input, filter_graph, stills_graph, wave_graph
from cefmp4.media.source import input_options
from cefmp4.model.rendition import Codec

SEGMENT_SECONDS = 6
AUDIO_KBPS = 128
AUDIO_RATE = 48000

_FRAGMENTED = "+empty_moov+default_base_moof+delay_moov+skip_trailer"
_VIDEO_FLAGS = f"+frag_keyframe{_FRAGMENTED}+negative_cts_offsets"


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


def encode_command(
    ffmpeg: str,
    source: Input,
    videos: Sequence[VideoOut],
    audios: Sequence[AudioOut],
    images: ImagesOut | None = None,
) -> list[str]:
    """One ffmpeg for all renditions: it decodes once."""
    arguments = [*_reading(ffmpeg, source), "-filter_complex"]
    arguments.append(filter_graph(source, videos, images))
    for position, video in enumerate(videos):
        arguments += _video(f"[v{position}]", video, encoder_options(video))
    return [*arguments, *_audios(audios), *(_images(images) if images else ())]


def copy_command(
    ffmpeg: str, source: Input, video: VideoOut, audios: Sequence[AudioOut]
) -> list[str]:
    """Nothing is decoded but audio that is not AAC."""
    options = ["-c:v", "copy", *(["-tag:v", "hvc1"] if video.codec is Codec.HEVC else [])]
    if not source.are_colors_told:
        options += ["-bsf:v", color_bitstream_filter(video.codec, source.colors)]
    pictures = _video(f"0:{source.video}", video, options)
    return [*_reading(ffmpeg, source), *pictures, *_audios(audios)]


def stills_command(ffmpeg: str, source: Input, images: ImagesOut) -> list[str]:
    """For a copy, which decodes nothing: from its standard input, one picture per thumbnail."""
    own = ("-protocol_whitelist", "pipe", "-f", "mp4", "-ignore_editlist", "1", "-i", "pipe:0")
    graph = stills_graph(source, images.plan)
    return [*_start(ffmpeg), *own, "-filter_complex", graph, *_images(images)]


def sound_command(
    ffmpeg: str, source: Input, audios: Sequence[AudioOut], wave: WaveOut | None = None
) -> list[str]:
    """Sound alone; and perhaps a picture of the first of its tracks."""
    arguments = _reading(ffmpeg, source)
    if wave:
        arguments += ["-filter_complex", wave_graph(audios[0].index, wave.duration_s)]
        arguments += ["-map", "[wave]", *_picture(wave.fd)]
    arguments += _audios(audios)
    if source.video >= 0:
        # The clock of a transport stream starts with the first of the streams that are used.
        arguments += ["-map", f"0:{source.video}", "-c:v", "copy", "-f", "null", "-"]
    return arguments


def encoder_trial_command(ffmpeg: str, video: VideoOut) -> list[str]:
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


def _reading(ffmpeg: str, source: Input) -> list[str]:
    return [*_start(ffmpeg), *input_options(source.argument, is_remote=source.is_remote)]


def _video(stream: str, video: VideoOut, options: Sequence[str]) -> list[str]:
    form = ("-f", "mp4", "-movflags", _VIDEO_FLAGS, f"pipe:{video.fd}")
    return ["-map", stream, *_plain(), *options, *form]


def _audios(audios: Sequence[AudioOut]) -> list[str]:
    return [word for audio in audios for word in _audio(audio)]


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
