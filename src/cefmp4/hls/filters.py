"""What happens to the pictures between decoder and encoders, as one graph. Pure."""

from collections.abc import Sequence

from cefmp4.hls.colors import is_rgb
from cefmp4.hls.examined import VideoTrack
from cefmp4.hls.ffmpeg import pixel_format
from cefmp4.hls.thumbnails import SpritePlan
from cefmp4.model.rendition import Rendition

_TO_SDR = (
    # What the source does not tell stays unknown to zscale otherwise, which then refuses.
    "setparams=color_primaries=bt2020:color_trc={transfer}:colorspace=bt2020nc,"
    "zscale=t=linear:npl=100,format=gbrpf32le,"
    "zscale=p=709,tonemap=hable:desat=0,zscale=t=709:m=709:r=limited,"
)
_FROM_RGB = "yuv444p|yuv444p10le|yuv444p12le"
_FAR_LARGER = 1.5
_WAVE_SIZE, _WAVE_COLOR = "1280x360", "0x4FA3FF"
_WAVE_RATE, _WAVE_RATE_OF_SHORT, _LONG_SOUND_S = 1000, 8000, 600.0
_ZSCALE_TRANSFER = {"PQ": "smpte2084", "HLG": "arib-std-b67"}

Encoding = tuple[Rendition, str]  # and its encoder


def filter_graph(
    source: VideoTrack, videos: Sequence[Encoding], plan: SpritePlan | None, held_s: float = 0.0
) -> str:
    """One decoded picture, split once; what several outputs want alike is made once. Frames start
    at zero, as the audio does, or the two would drift apart by what the first frame came late.
    `plan`: of the images that are made of it, too; `held_s`: how long the last picture stays."""
    top, hdr = videos[0][0], source.picture.hdr
    looks = _looks(hdr, videos)
    branches = len(looks) + (2 if plan else 0)
    labels = "".join(f"[s{position}]" for position in range(branches))
    chains = [f"[0:{source.index}]{_head(source, top, held_s)},split={branches}{labels}"]
    for at, (look, positions) in enumerate(looks.items()):
        outs = "".join(f"[v{position}]" for position in positions)
        copies = f",split={len(positions)}" if len(positions) > 1 else ""
        chains.append(f"[s{at}]{look}{copies}{outs}")
    if plan:
        at = len(looks)
        every = max(1, round(plan.interval_s * top.frame_rate))
        poster_frame = round(plan.poster_s * top.frame_rate)
        chains.append(f"[s{at}]select=not(mod(n\\,{every})),{_sdr(hdr)}{_sprite(plan)}[sprite]")
        chains.append(
            f"[s{at + 1}]select=eq(n\\,{poster_frame}),{_sdr(hdr)}{_poster(plan)}[poster]"
        )
    return ";".join(chains)


def stills_graph(source: VideoTrack, plan: SpritePlan) -> str:
    """Of the pictures that a copy hands out, one for each thumbnail."""
    return (
        f"[0:v]{_meaning(source)},{_sdr(source.picture.hdr)}split=2[s0][s1];[s0]{_sprite(plan)}[sprite];"
        f"[s1]select=eq(n\\,{plan.poster_number}),{_poster(plan)}[poster]"
    )


def wave_graph(index: int, duration_s: float) -> str:
    """How loud a sound is from its beginning to its end. The filter that draws it keeps all that it
    is given, hence it gets the power of the sound, and of a long one not often."""
    rate = _WAVE_RATE if duration_s > _LONG_SOUND_S else _WAVE_RATE_OF_SHORT
    return (
        f"[0:{index}]aresample=8000,aformat=sample_fmts=flt:channel_layouts=mono,asplit[a][b];"
        f"[a][b]amultiply,aresample={rate},aformat=sample_fmts=s16,"
        f"showwavespic=s={_WAVE_SIZE}:colors={_WAVE_COLOR}:scale=sqrt,format=yuvj420p[wave]"
    )


def _looks(hdr: str | None, videos: Sequence[Encoding]) -> dict[str, list[int]]:
    """How pictures are scaled and coloured, and which outputs take them so: an H.264 rung beside
    an HEVC one of its size encodes the very same pictures."""
    looks: dict[str, list[int]] = {}
    for position, (rendition, encoder) in enumerate(videos):
        to_sdr = "" if rendition.hdr else _sdr(hdr)
        form = pixel_format(encoder, rendition.bit_depth)
        look = f"{_scale(rendition)},setsar=1,{to_sdr}format={form}"
        looks.setdefault(look, []).append(position)
    return looks


def _head(source: VideoTrack, top: Rendition, held_s: float) -> str:
    """What happens to every picture. One that is far larger than all rungs is brought down to the
    top one first, and the others are made of that: to read all its pixels for every rung would
    cost more than decoding it."""
    steps = ["bwdif=mode=send_frame:deint=interlaced"] if source.is_interlaced else []
    steps += [_meaning(source), f"fps={top.frame_rate}:start_time=0"]
    if held_s:
        steps.append(f"tpad=stop_mode=clone:stop_duration={held_s:.6f}")
    if source.width * source.height > _FAR_LARGER * top.width * top.height:
        steps.append(_scale(top))
    return ",".join(steps)


def _scale(rendition: Rendition) -> str:
    return f"scale={rendition.width}:{rendition.height}:flags=bicubic"


def _meaning(source: VideoTrack) -> str:
    """What the container says, or what pictures of that size mean: decoders say nothing, or, that
    of VP8, always the same. Red, green and blue become what is meant here, at once."""
    primaries, transfer, matrix = source.meant_colors
    told = f"setparams=color_primaries={primaries}:color_trc={transfer}:colorspace={matrix}"
    if is_rgb(source.pix_fmt):
        to = "bt2020" if source.picture.hdr else "bt709"
        return f"scale=out_color_matrix={to}:out_range=tv,format={_FROM_RGB},{told}:range=tv"
    if source.is_full_range is None:
        return told
    return f"{told}:range={'pc' if source.is_full_range else 'tv'}"


def _sdr(hdr: str | None) -> str:
    """HDR shown as if it were SDR would be grey and dull."""
    return _TO_SDR.format(transfer=_ZSCALE_TRANSFER[hdr]) if hdr else ""


def _sprite(plan: SpritePlan) -> str:
    """So much smaller, the mean of the pixels is as good as what takes their neighbours in, too,
    and costs half of it."""
    return f"{_image(plan.size, 'area')},tile={plan.columns}x{plan.rows},format=yuvj420p"


def _poster(plan: SpritePlan) -> str:
    return f"{_image(plan.poster_size, 'bicubic')},format=yuvj420p"


def _image(size: tuple[int, int], how: str) -> str:
    """JPEG has one matrix, whatever the size."""
    return f"scale={size[0]}:{size[1]}:flags={how}:out_color_matrix=bt601,setsar=1"
