"""The same HLS by ffmpeg alone, into a folder: filters, encoders and options are those of our own
command, with ffmpeg's HLS muxer at its end instead of our pipes."""

import os
from collections.abc import Sequence
from pathlib import Path

from bench import meter
from bench.place import PASSED_ON
from cefmp4.hls import ffmpeg, filters
from cefmp4.hls.examined import ExaminedVideo, examine
from cefmp4.hls.thumbnails import plan_sprite
from cefmp4.media.ffprobe import Ffprobe
from cefmp4.media.source import MediaSource
from cefmp4.model.rendition import Codec, Rendition

TIMEOUT_S = 400.0
_ENCODERS = {Codec.HEVC: "libx265", Codec.H264: "libx264"}
_SOUND = ("-c:a", "aac", "-b:a", f"{ffmpeg.AUDIO_KBPS}k", "-ac", "2", "-ar", str(ffmpeg.AUDIO_RATE))


async def examined(path: Path) -> ExaminedVideo:
    """Not part of what is measured."""
    fd = os.open(path, os.O_RDONLY)
    try:
        found = await examine(MediaSource.of_file(fd), Ffprobe())
    finally:
        os.close(fd)
    assert isinstance(found, ExaminedVideo)  # the bench makes recordings with pictures
    return found


def encode_command(
    path: Path, source: ExaminedVideo, rendition: Rendition, folder: Path, *, has_rest: bool = True
) -> list[str]:
    """One rendition; `has_rest`: sound, thumbnails and poster as well."""
    encoder = _ENCODERS[rendition.codec]
    plan = plan_sprite(source.video.picture, source.duration_s) if has_rest else None
    graph = filters.filter_graph(source.video, [(rendition, encoder)], plan)
    return [
        *_start(path),
        *("-filter_complex", graph),
        *("-map", "[v0]", *ffmpeg.encoder_options(rendition, encoder)),
        *(("-map", f"0:{source.audio[0].index}", *_SOUND) if has_rest else ()),
        *_hls(folder),
        *(_images(folder) if has_rest else ()),
    ]


def copy_command(path: Path, folder: Path) -> list[str]:
    return [*_start(path), "-map", "0:v:0", "-map", "0:a:0", "-c", "copy", *_hls(folder)]


async def run(command: Sequence[str], folder: Path) -> meter.Run:
    """Raises RuntimeError with ffmpeg's words when it failed. Its log is not in the result."""
    done = await meter.run_measured(
        command,
        environment={name: os.environ[name] for name in PASSED_ON if name in os.environ},
        folder=folder,
        timeout_s=TIMEOUT_S,
    )
    if done.code:
        raise RuntimeError(f"ffmpeg ended with {done.code}: {done.output.strip()[-300:]}")
    return done


def _start(path: Path) -> list[str]:
    return ["ffmpeg", "-nostdin", "-v", "error", "-y", "-i", str(path)]


def _hls(folder: Path) -> list[str]:
    return [
        *("-f", "hls", "-hls_time", str(ffmpeg.SEGMENT_SECONDS), "-hls_playlist_type", "vod"),
        *("-hls_segment_type", "fmp4", "-hls_segment_filename", str(folder / "seg_%05d.m4s")),
        str(folder / "index.m3u8"),
    ]


def _images(folder: Path) -> list[str]:
    arguments: list[str] = []
    for label in ("sprite", "poster"):
        arguments += ["-map", f"[{label}]", "-frames:v", "1", "-c:v", "mjpeg", "-q:v", "4"]
        arguments += ["-f", "image2", "-update", "1", str(folder / f"{label}.jpg")]
    return arguments
