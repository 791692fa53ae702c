"""What each encoder is told, so that all of them make the same thing: closed groups of pictures of
one length, bounded peaks, and the colours of the source. Pure."""

from dataclasses import dataclass, field

from cefmp4.hls.colors import Colors
from cefmp4.model.rendition import Codec, Rendition


@dataclass(frozen=True, slots=True, kw_only=True)
class Hdr10:
    """Colours of the source, and its mastering display and light level as x265 spells them."""

    primaries: str = ""
    transfer: str = ""
    matrix: str = ""
    mastering: str = ""
    light_level: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoOut:
    """`encoder` "" copies what is there."""

    fd: int
    encoder: str
    codec: Codec
    rendition: Rendition | None = None
    colors: Hdr10 = field(default_factory=Hdr10)


def encoder_options(video: VideoOut) -> list[str]:
    rendition = video.rendition
    if rendition is None:
        raise ValueError("a copy has no encoder")
    colors = _color_options(video.colors) if rendition.hdr else []
    tag = ["-tag:v", "hvc1"] if rendition.codec is Codec.HEVC else ["-tag:v", "avc1"]
    return [*_OPTIONS[video.encoder](rendition, video.colors), *colors, *tag]


def pixel_format(encoder: str, bit_depth: int) -> str:
    if bit_depth <= 8:
        return "yuv420p"
    return "p010le" if encoder.endswith("_nvenc") else "yuv420p10le"


def _x265(rendition: Rendition, colors: Hdr10) -> list[str]:
    gop, peak = rendition.gop_frames, rendition.peak_kbps
    parameters = [
        "log-level=error",
        f"keyint={gop}:min-keyint={gop}:scenecut=0:open-gop=0:repeat-headers=0",
        f"vbv-maxrate={peak}:vbv-bufsize={peak}",
    ]
    if rendition.hdr == "PQ":
        parameters.append("hdr10=1")
        parameters += [f"master-display={colors.mastering}"] if colors.mastering else []
        parameters += [f"max-cll={colors.light_level}"] if colors.light_level else []
    return [
        *("-c:v", "libx265", "-preset", "superfast", "-crf", "26"),
        *("-x265-params", ":".join(parameters)),
    ]


def _x264(rendition: Rendition, _colors: Hdr10) -> list[str]:
    gop, peak = rendition.gop_frames, rendition.peak_kbps
    return [
        *("-c:v", "libx264", "-preset", "veryfast", "-crf", "23", "-profile:v", "high"),
        *("-maxrate", f"{peak}k", "-bufsize", f"{peak}k"),
        *("-x264-params", f"keyint={gop}:min-keyint={gop}:scenecut=0:open-gop=0"),
    ]


def _nvenc(rendition: Rendition, _colors: Hdr10) -> list[str]:
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


def color_bitstream_filter(codec: Codec, colors: Colors) -> str:
    """Writes into a copy what its pictures mean, where nothing in it tells."""
    names = ("colour_primaries", "transfer_characteristics", "matrix_coefficients")
    known = [
        f"{name}={_CODE_POINTS[value]}"
        for name, value in zip(names, colors, strict=True)
        if value in _CODE_POINTS
    ]
    return f"{codec}_metadata={':'.join(known)}"


# By ITU-T H.273; of those that are meant where nothing is told.
_CODE_POINTS = {"bt709": 1, "bt470bg": 5, "smpte170m": 6}
_OPTIONS = {"libx265": _x265, "libx264": _x264, "hevc_nvenc": _nvenc, "h264_nvenc": _nvenc}


def _color_options(colors: Hdr10) -> list[str]:
    named = (
        ("-color_primaries", colors.primaries),
        ("-color_trc", colors.transfer),
        ("-colorspace", colors.matrix),
    )
    return [word for name, value in named if value for word in (name, value)]
