"""The command lines of ffmpeg and ffprobe. Pure: what is asked for in, arguments out.

Inputs see one file or one server and nothing else; outputs are pipes."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from cefmp4.encode.encoder_options import VideoOut, encoder_options, pixel_format
from cefmp4.encode.thumbnails import SpritePlan
from cefmp4.model.rendition import Codec, Rendition

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
_TO_SDR = (
    # What the source does not tell stays unknown to zscale otherwise, which then refuses.
    "setparams=color_primaries=bt2020:color_trc={transfer}:colorspace=bt2020nc,"
    "zscale=t=linear:npl=100,format=gbrpf32le,"
    "zscale=p=709,tonemap=hable:desat=0,zscale=t=709:m=709:r=limited,"
)
_FAR_LARGER = 1.5
_ZSCALE_TRANSFER = {"PQ": "smpte2084", "HLG": "arib-std-b67"}
_NOISE = re.compile(
    r"\[[^\]]*@ 0x[0-9a-f]+\]\s*|\[(?:panic|fatal|error|warning)\]\s*|^\[\w+\]\s*|"
    r"file:/proc/self/fd/\d+:?\s*|https?://\S+"
)
_REMARK = re.compile(r"\[warning\]")

HEADER_QUESTIONS = ("-show_format", "-show_streams")
CLOCK_QUESTIONS = ("-show_entries", "packet=stream_index,dts_time")


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """`video`: index of its stream; `argument`: what follows -i; `pixels`: of one picture."""

    argument: str
    is_remote: bool
    video: int
    pixels: int = 0
    is_interlaced: bool = False
    hdr: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioOut:
    fd: int
    index: int
    is_copy: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagesOut:
    """A sprite of thumbnails and a poster, each on a pipe of its own."""

    sprite_fd: int
    poster_fd: int
    plan: SpritePlan


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
    tag = ["-tag:v", "hvc1"] if video.codec is Codec.HEVC else []
    arguments = [*_start(ffmpeg), *_input(source)]
    arguments += ["-map", f"0:{source.video}", *_plain(), "-c:v", "copy", *tag]
    arguments += ["-f", "mp4", "-movflags", _VIDEO_FLAGS, f"pipe:{video.fd}"]
    for audio in audios:
        arguments += _audio(audio)
    return arguments


def stills_command(ffmpeg: str, images: ImagesOut, hdr: str | None) -> list[str]:
    """For a copy, which decodes nothing: from its standard input, one picture per thumbnail."""
    plan = images.plan
    graph = (
        f"[0:v]{_sdr(hdr)}split=2[s0][s1];[s0]{_sprite(plan)}[sprite];"
        f"[s1]select=eq(n\\,{plan.poster_number}),{_poster(plan)}[poster]"
    )
    own = ("-protocol_whitelist", "pipe", "-f", "mp4", "-ignore_editlist", "1", "-i", "pipe:0")
    return [*_start(ffmpeg), *own, "-filter_complex", graph, *_images(images)]


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


def filter_graph(source: Input, videos: Sequence[VideoOut], images: ImagesOut | None) -> str:
    """One decoded picture, split once; what several outputs want alike is made once. Frames start
    at zero, as the audio does, or the two would drift apart by what the first frame came late."""
    renditions = [video.rendition for video in videos if video.rendition]
    looks = _looks(source, videos)
    branches = len(looks) + (2 if images else 0)
    labels = "".join(f"[s{position}]" for position in range(branches))
    head = _head(source, renditions[0])
    chains = [f"[0:{source.video}]{head},split={branches}{labels}"]
    for at, (look, positions) in enumerate(looks.items()):
        outs = "".join(f"[v{position}]" for position in positions)
        copies = f",split={len(positions)}" if len(positions) > 1 else ""
        chains.append(f"[s{at}]{look}{copies}{outs}")
    if images:
        plan, at, rate = images.plan, len(looks), renditions[0].frame_rate
        every = max(1, round(plan.interval_s * rate))
        poster_frame = round(plan.poster_s * rate)
        chains.append(
            f"[s{at}]select=not(mod(n\\,{every})),{_sdr(source.hdr)}{_sprite(plan)}[sprite]"
        )
        chains.append(
            f"[s{at + 1}]select=eq(n\\,{poster_frame}),{_sdr(source.hdr)}{_poster(plan)}[poster]"
        )
    return ";".join(chains)


def _looks(source: Input, videos: Sequence[VideoOut]) -> dict[str, list[int]]:
    """How pictures are scaled and coloured, and which outputs take them so: an H.264 rung beside
    an HEVC one of its size encodes the very same pictures."""
    looks: dict[str, list[int]] = {}
    for position, video in enumerate(videos):
        if rendition := video.rendition:
            to_sdr = "" if rendition.hdr else _sdr(source.hdr)
            look = (
                f"{_scale(rendition)},setsar=1,"
                f"{to_sdr}format={pixel_format(video.encoder, rendition.bit_depth)}"
            )
            looks.setdefault(look, []).append(position)
    return looks


def _head(source: Input, top: Rendition) -> str:
    """What happens to every picture. One that is far larger than all rungs is brought down to the
    top one first, and the others are made of that: to read all its pixels for every rung would
    cost more than decoding it."""
    steps = ["bwdif=mode=send_frame:deint=interlaced"] if source.is_interlaced else []
    steps.append(f"fps={top.frame_rate}:start_time=0")
    if source.pixels > _FAR_LARGER * top.width * top.height:
        steps.append(_scale(top))
    return ",".join(steps)


def _scale(rendition: Rendition) -> str:
    return f"scale={rendition.width}:{rendition.height}:flags=bicubic"


def _start(ffmpeg: str) -> list[str]:
    return [
        *(ffmpeg, "-nostdin", "-hide_banner", "-y", "-v", "repeat+level+warning", "-nostats"),
        *("-progress", "pipe:1", "-stats_period", "0.5"),
    ]


def _input(source: Input) -> list[str]:
    return [*_cage(source.is_remote), "-i", source.argument]


def _cage(is_remote: bool) -> list[str]:
    protocols = "http,https,tcp,tls" if is_remote else "file"
    reconnect = _RECONNECT if is_remote else ()
    return [*reconnect, "-protocol_whitelist", protocols, "-format_whitelist", _CONTAINERS]


def _plain() -> list[str]:
    return ["-map_metadata", "-1", "-map_chapters", "-1"]


def _audio(audio: AudioOut) -> list[str]:
    encoded = [
        *("-af", "aresample=async=1:first_pts=0", "-c:a", "aac", "-b:a", f"{AUDIO_KBPS}k"),
        *("-ac", "2", "-ar", str(AUDIO_RATE)),
    ]
    return [
        *("-map", f"0:{audio.index}", *_plain()),
        *(["-c:a", "copy"] if audio.is_copy else encoded),
        *("-f", "mp4", "-movflags", _FRAGMENTED),
        *("-frag_duration", str(SEGMENT_SECONDS * 1_000_000), f"pipe:{audio.fd}"),
    ]


def _images(images: ImagesOut) -> list[str]:
    arguments: list[str] = []
    for label, fd in (("sprite", images.sprite_fd), ("poster", images.poster_fd)):
        arguments += ["-map", f"[{label}]", "-frames:v", "1", "-c:v", "mjpeg", "-q:v", "4"]
        arguments += ["-f", "image2pipe", f"pipe:{fd}"]
    return arguments


def _sdr(hdr: str | None) -> str:
    """HDR shown as if it were SDR would be grey and dull."""
    return _TO_SDR.format(transfer=_ZSCALE_TRANSFER[hdr]) if hdr else ""


def _sprite(plan: SpritePlan) -> str:
    return (
        f"scale={plan.width}:{plan.height},setsar=1,tile={plan.columns}x{plan.rows},format=yuvj420p"
    )


def _poster(plan: SpritePlan) -> str:
    return f"scale={plan.poster_width}:{plan.poster_height},setsar=1,format=yuvj420p"


def last_line(stderr: str) -> str:
    """What ffmpeg said last, without addresses, descriptors and signed URLs."""
    told = stderr.splitlines()
    graver = [line for line in told if line.strip() and not _REMARK.search(line)]
    lines = [_NOISE.sub("", line).strip() for line in graver or told]
    said = [line for line in lines if line]
    if any("not on whitelist" in line for line in said):
        return "it is not a recording: a playlist, a script or another format we do not open"
    return "".join(c if c.isprintable() else "?" for c in said[-1])[:200] if said else ""
