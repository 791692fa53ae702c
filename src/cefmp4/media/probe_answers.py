"""What ffprobe is asked, and what its answer means. The answer comes from foreign bytes: any field
may be missing, absurd or of another type, and none of that is an error."""

import json
import math
import re
from collections.abc import Iterator
from typing import Any

from cefmp4.media.protection import Protection
from cefmp4.model.media import MediaInfo, Track

# Containers that hold their own media. Never formats that name other files or servers: hls, dash,
# concat, sdp, rtsp, image2, tedcaptions, imf, lavfi and the like.
CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpegts,mpeg,mpegvideo,avi,flv,mxf,gxf,asf,dv,ivf,nut,"
    "wav,w64,flac,mp3,aac,ac3,eac3,ogg,caf,aiff,amr,h264,hevc,av1,obu"
)
_STREAM_FIELDS = (
    "index,codec_type,codec_name,codec_tag_string,profile,width,height,avg_frame_rate,r_frame_rate,"
    "color_transfer,channels,sample_rate,bit_rate,duration"
)
_ENTRIES = (
    "format=format_name,duration,start_time,bit_rate"
    f":stream={_STREAM_FIELDS}"
    ":stream_tags=language,rotate,enc_key_id:stream_disposition=attached_pic:stream_side_data=rotation"
)
_HDR = {"smpte2084": "PQ", "arib-std-b67": "HLG"}
_KINDS = frozenset({"video", "audio", "subtitle", "data", "attachment"})
_MAX_TEXT = 64
_UNKNOWN = "unknown"
_UNPROTECTED = Protection()
_MAX_TRACKS = 1000
_UNSUPPORTED = re.compile(r"Unsupported codec with id \d+ for input stream (\d+)")


def header_command(ffprobe: str, source: str) -> list[str]:
    """Which tracks it has no decoder for is a warning to ffprobe."""
    loud = ("-v", "level+warning")
    return [*_common(ffprobe), *loud, "-show_entries", _ENTRIES, "-of", "json", "-i", source]


def tail_command(ffprobe: str, source: str) -> list[str]:
    """The last packets: a recorder that was killed leaves no duration in the header."""
    return [
        *_common(ffprobe),
        *("-read_intervals", "9999999%"),
        *("-show_entries", "packet=pts_time,duration_time:format=start_time"),
        *("-of", "json", "-i", source),
    ]


def first_packet_command(ffprobe: str, source: str) -> list[str]:
    """Raw streams have no times to seek by; still, one packet shows that there is media."""
    return [
        *_common(ffprobe),
        *("-read_intervals", "%+#1"),
        *("-show_entries", "packet=pts_time"),
        *("-of", "json", "-i", source),
    ]


def _common(ffprobe: str) -> list[str]:
    return [
        ffprobe,
        "-hide_banner",
        *("-v", "error"),
        *("-protocol_whitelist", "file"),
        *("-format_whitelist", CONTAINERS),
    ]


def parse_header(
    answer: bytes, said: str = "", protection: Protection = _UNPROTECTED
) -> MediaInfo | None:
    """Everything but the verdict; None where there is no answer at all. `said`: on stderr."""
    document = _load(answer)
    if document is None:
        return None
    container = _table(document.get("format"))
    streams = document.get("streams")
    undecodable = frozenset(int(index) for index in _UNSUPPORTED.findall(said))
    found = _tracks(streams, undecodable, protection) if isinstance(streams, list) else ()
    return MediaInfo(
        container=_text(container.get("format_name")),
        duration_seconds=_positive(container.get("duration")) or _longest(streams),
        bit_rate=_count(container.get("bit_rate")),
        tracks=tuple(found),
    )


def parse_tail(answer: bytes) -> tuple[bool, float | None]:
    """Whether any packet was there, and how long the recording is by the last ones."""
    document = _load(answer) or {}
    packets = document.get("packets")
    if not isinstance(packets, list) or not packets:
        return False, None
    start = _number(_table(document.get("format")).get("start_time")) or 0.0
    ends = [
        at + (_positive(packet.get("duration_time")) or 0.0) - start
        for packet in map(_table, packets)
        if (at := _number(packet.get("pts_time"))) is not None
    ]
    return True, _positive(max(ends, default=None))


def _load(answer: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(answer.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _tracks(
    streams: list[Any], undecodable: frozenset[int], protection: Protection
) -> Iterator[Track]:
    for position, entry in enumerate(streams[:_MAX_TRACKS]):
        stream = _table(entry)
        tags, disposition = _table(stream.get("tags")), _table(stream.get("disposition"))
        kind = _text(stream.get("codec_type")) or "data"
        told = _count(stream.get("index"))
        index = position if told is None else told
        is_video = kind == "video"
        codec, profile = _codec(stream), _text(stream.get("profile"))
        yield Track(
            index=index,
            kind=kind if kind in _KINDS else "data",
            codec=codec,
            profile=None if profile == _UNKNOWN else profile,
            width=_count(stream.get("width")) or None,
            height=_count(stream.get("height")) or None,
            frame_rate=_frame_rate(stream) if is_video else None,
            hdr=_HDR.get(_text(stream.get("color_transfer")) or ""),
            rotation=_rotation(stream, tags) if is_video else None,
            channels=_count(stream.get("channels")) or None,
            sample_rate=_count(stream.get("sample_rate")) or None,
            language=_language(tags),
            bit_rate=_count(stream.get("bit_rate")) or None,
            is_cover=bool(_count(disposition.get("attached_pic"))),
            is_encrypted=protection.covers(index) or bool(tags.get("enc_key_id")),
            is_supported=index not in undecodable,
        )


def _codec(stream: dict[str, Any]) -> str:
    """What ffprobe has no name for is called as the file calls it."""
    name, tag = _text(stream.get("codec_name")), _text(stream.get("codec_tag_string"))
    if name and name != _UNKNOWN:
        return name
    return tag if tag and tag.isalnum() else _UNKNOWN


def _language(tags: dict[str, Any]) -> str | None:
    language = _text(tags.get("language"))
    return None if language == "und" else language


def _longest(streams: object) -> float | None:
    if not isinstance(streams, list):
        return None
    durations = (_positive(_table(stream).get("duration")) for stream in streams[:_MAX_TRACKS])
    return max((seconds for seconds in durations if seconds), default=None)


def _frame_rate(stream: dict[str, Any]) -> float | None:
    """The average, or what the container claims where nothing can be averaged."""
    return _ratio(stream.get("avg_frame_rate")) or _ratio(stream.get("r_frame_rate"))


def _ratio(value: object) -> float | None:
    numerator, _, denominator = str(value).partition("/")
    above, below = _positive(numerator), _positive(denominator or 1)
    return round(above / below, 3) or None if above and below else None


def _rotation(stream: dict[str, Any], tags: dict[str, Any]) -> int:
    """Degrees clockwise to turn the picture for showing: 0, 90, 180 or 270."""
    side_data = stream.get("side_data_list")
    for entry in side_data if isinstance(side_data, list) else ():
        # The display matrix counts counter-clockwise.
        if (degrees := _number(_table(entry).get("rotation"))) is not None:
            return round(-degrees / 90) * 90 % 360
    return round((_number(tags.get("rotate")) or 0.0) / 90) * 90 % 360


def _table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    if not isinstance(value, str):
        return None
    printable = "".join(
        char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in value
    )
    return printable[:_MAX_TEXT] or None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and abs(number) < 1e15 else None


def _positive(value: object) -> float | None:
    number = _number(value)
    return round(number, 6) if number is not None and number > 0 else None


def _count(value: object) -> int | None:
    number = _number(value)
    return int(number) if number is not None and number >= 0 else None
