"""The command lines of ffmpeg: how they begin, and what each output is told, up to its pipe. Inputs
see one file or one object and nothing else. Whatever encodes makes the same thing: closed groups of
pictures of one length, bounded peaks, and the colours of the source. Pure."""

from collections.abc import Sequence

from cefmp4.hls import colors
from cefmp4.hls.examined import AudioTrack, VideoTrack
from cefmp4.hls.remux import may_copy_audio
from cefmp4.media.source import MediaSource
from cefmp4.model.rendition import Codec, Rendition

SEGMENT_SECONDS = 6
AUDIO_KBPS = 128
AUDIO_RATE = 48000
UNNOTICED_S = 0.3  # of silence that is missing: players go on

_FRAGMENTED = "+empty_moov+default_base_moof+delay_moov+skip_trailer"
_VIDEO_FLAGS = f"+frag_keyframe{_FRAGMENTED}+negative_cts_offsets"
_PLAIN = ("-map_metadata", "-1", "-map_chapters", "-1")
_COLOR_OPTIONS = ("-color_primaries", "-color_trc", "-colorspace")
_COLOR_NAMES = ("colour_primaries", "transfer_characteristics", "matrix_coefficients")
# By ITU-T H.273; of those that are meant where nothing is told.
_CODE_POINTS = {"bt709": 1, "bt470bg": 5, "smpte170m": 6}


def reading(ffmpeg: str, source: MediaSource, graph: str = "") -> list[str]:
    """The beginning of a command. One ffmpeg for all renditions: it decodes once."""
    filters = ("-filter_complex", graph) if graph else ()
    return [*_start(ffmpeg), *source.input_options, *filters]


def reading_stills(ffmpeg: str, graph: str) -> list[str]:
    """For a copy, which decodes nothing: from its standard input, one picture per thumbnail. To
    share out a picture that becomes so small costs threads more than it saves."""
    own = ("-protocol_whitelist", "pipe", "-f", "mp4", "-ignore_editlist", "1", "-i", "pipe:0")
    return [*_start(ffmpeg), *own, "-filter_complex_threads", "1", "-filter_complex", graph]


def clock_of(index: int) -> list[str]:
    """The clock of a transport stream starts with the first of the streams that are used."""
    return ["-map", f"0:{index}", "-c:v", "copy", "-f", "null", "-"]


def video(stream: str, options: Sequence[str]) -> list[str]:
    """`stream`: of the source, or a label of the filters."""
    return ["-map", stream, *_PLAIN, *options, "-f", "mp4", "-movflags", _VIDEO_FLAGS]


def copied_video(source: VideoTrack) -> list[str]:
    """Writes into a copy what its pictures mean, where nothing in it tells."""
    options = ["-c:v", "copy", *(("-tag:v", "hvc1") if source.codec == Codec.HEVC else ())]
    if colors.is_sd(source.width, source.height) and not colors.is_told(source.color):
        known = [
            f"{name}={_CODE_POINTS[value]}"
            for name, value in zip(_COLOR_NAMES, source.meant_colors, strict=True)
            if value in _CODE_POINTS
        ]
        options += ["-bsf:v", f"{source.codec}_metadata={':'.join(known)}"]
    return video(f"0:{source.index}", options)


def audio(track: AudioTrack, end_s: float | None, *, may_copy: bool) -> list[str]:
    """`end_s`: when it is to end; copied where it may be, and need not grow for that."""
    lacks_s = track.lacks_s(end_s)
    if may_copy and may_copy_audio(track) and lacks_s <= UNNOTICED_S:
        options = ["-c:a", "copy", *(("-t", f"{end_s:.6f}") if lacks_s < 0 else ())]
    else:
        steps = ["aresample=async=1:first_pts=0"]
        steps += [f"apad=whole_dur={end_s:.6f}"] if lacks_s > 0 else []
        steps += [] if end_s is None else [f"atrim=end={end_s:.6f}"]
        options = [
            *("-af", ",".join(steps), "-c:a", "aac", "-b:a", f"{AUDIO_KBPS}k"),
            *("-ac", "2", "-ar", str(AUDIO_RATE)),
        ]
    return [
        *("-map", f"0:{track.index}", *_PLAIN, *options, "-f", "mp4", "-movflags", _FRAGMENTED),
        *("-frag_duration", str(SEGMENT_SECONDS * 1_000_000)),
    ]


def picture(label: str) -> list[str]:
    jpeg = ("-frames:v", "1", "-c:v", "mjpeg", "-q:v", "4")
    return ["-map", f"[{label}]", *jpeg, "-f", "image2pipe"]


def encoder_trial_command(ffmpeg: str, rendition: Rendition, encoder: str) -> list[str]:
    """A few real frames with the job's own options: neither a list of encoders nor a list of
    devices tells whether a session can be opened."""
    return [
        *(ffmpeg, "-nostdin", "-hide_banner", "-v", "error", "-f", "lavfi"),
        *("-i", "color=black:s=256x256:r=30", "-frames:v", "8"),
        *("-pix_fmt", pixel_format(encoder, rendition.bit_depth)),
        *encoder_options(rendition, encoder),
        *("-f", "null", "-"),
    ]


def encoder_options(
    rendition: Rendition,
    encoder: str,
    meant: colors.Colors = ("", "", ""),
    hdr10: Sequence[str] = (),
) -> list[str]:
    """`meant`: colours of the source; `hdr10`: what x265 is told of its display."""
    options = _x265(rendition, hdr10) if encoder == "libx265" else _OPTIONS[encoder](rendition)
    if rendition.hdr:
        told = zip(_COLOR_OPTIONS, meant, strict=True)
        options += [word for name, value in told if value for word in (name, value)]
    return [*options, "-tag:v", "hvc1" if rendition.codec is Codec.HEVC else "avc1"]


def pixel_format(encoder: str, bit_depth: int) -> str:
    if bit_depth <= 8:
        return "yuv420p"
    return "p010le" if encoder.endswith("_nvenc") else "yuv420p10le"


def _x265(rendition: Rendition, hdr10: Sequence[str]) -> list[str]:
    gop, peak = rendition.gop_frames, rendition.peak_kbps
    parameters = (
        "log-level=error",
        f"keyint={gop}:min-keyint={gop}:scenecut=0:open-gop=0:repeat-headers=0",
        f"vbv-maxrate={peak}:vbv-bufsize={peak}",
        *(("hdr10=1", *hdr10) if rendition.hdr == "PQ" else ()),
    )
    return [
        *("-c:v", "libx265", "-preset", "superfast", "-crf", "26"),
        *("-x265-params", ":".join(parameters)),
    ]


def _x264(rendition: Rendition) -> list[str]:
    gop, peak = rendition.gop_frames, rendition.peak_kbps
    return [
        *("-c:v", "libx264", "-preset", "veryfast", "-crf", "23", "-profile:v", "high"),
        *("-maxrate", f"{peak}k", "-bufsize", f"{peak}k"),
        *("-x264-params", f"keyint={gop}:min-keyint={gop}:scenecut=0:open-gop=0"),
    ]


def _nvenc(rendition: Rendition) -> list[str]:
    quality = "26" if rendition.codec is Codec.HEVC else "23"
    profile = "main10" if rendition.bit_depth > 8 else "main"
    return [
        *("-c:v", f"{rendition.codec}_nvenc", "-preset", "p5", "-tune", "hq", "-rc", "vbr"),
        *("-profile:v", profile if rendition.codec is Codec.HEVC else "high"),
        *("-cq", quality, "-b:v", "0"),
        *("-maxrate", f"{rendition.peak_kbps}k", "-bufsize", f"{rendition.peak_kbps}k"),
        *("-g", str(rendition.gop_frames), "-forced-idr", "1", "-no-scenecut", "1"),
        *("-strict_gop", "1", "-bf", "3", "-b_ref_mode", "middle", "-rc-lookahead", "20"),
        *("-spatial-aq", "1"),
    ]


_OPTIONS = {"libx264": _x264, "hevc_nvenc": _nvenc, "h264_nvenc": _nvenc}


def _start(ffmpeg: str) -> list[str]:
    return [
        *(ffmpeg, "-nostdin", "-hide_banner", "-y", "-v", "repeat+level+warning", "-nostats"),
        *("-progress", "pipe:1", "-stats_period", "0.5"),
    ]
