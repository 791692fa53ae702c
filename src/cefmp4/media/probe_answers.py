"""What the metadata document asks of ffprobe, and what the answer means. Pure."""

import re
from collections.abc import Iterator
from typing import Any

from cefmp4.media.ffprobe import LAST_PACKETS
from cefmp4.media.ffprobe_json import (
    codec_name,
    count,
    hdr,
    number,
    ratio,
    rotation,
    rows,
    table,
    text,
)
from cefmp4.media.protection import Protection
from cefmp4.model.media import MediaInfo, Track

_STREAM_FIELDS = (
    "index,codec_type,codec_name,codec_tag_string,profile,width,height,avg_frame_rate,r_frame_rate,"
    "color_transfer,channels,sample_rate,bit_rate,duration"
)
HEADER_QUESTIONS = (
    "-show_entries",
    f"format=format_name,duration,bit_rate:stream={_STREAM_FIELDS}"
    ":stream_tags=language,rotate,enc_key_id:stream_disposition=attached_pic:stream_side_data=rotation",
)
# A recorder that was killed leaves no duration in the header.
TAIL_QUESTIONS = (
    *("-read_intervals", LAST_PACKETS),
    *("-show_entries", "packet=pts_time,duration_time:format=start_time"),
)
# Raw streams have no times to seek by; still, one packet shows that there is media.
FIRST_PACKET_QUESTIONS = ("-read_intervals", "%+#1", "-show_entries", "packet=pts_time")
_KINDS = frozenset({"video", "audio", "subtitle", "data", "attachment"})
_UNPROTECTED = Protection()
_MAX_TRACKS = 1000
_UNSUPPORTED = re.compile(r"Unsupported codec with id \d+ for input stream (\d+)")


def parse_header(
    answer: dict[str, Any], said: str = "", protection: Protection = _UNPROTECTED
) -> MediaInfo:
    """Everything but whether it plays. `said`: on stderr."""
    container, streams = table(answer.get("format")), rows(answer.get("streams"))[:_MAX_TRACKS]
    undecodable = frozenset(int(index) for index in _UNSUPPORTED.findall(said))
    durations = (_positive(table(stream).get("duration")) for stream in streams)
    longest = max((seconds for seconds in durations if seconds), default=None)
    return MediaInfo(
        container=text(container.get("format_name")) or None,
        duration_seconds=_positive(container.get("duration")) or longest,
        bit_rate=count(container.get("bit_rate")) or None,
        tracks=tuple(_tracks(streams, undecodable, protection)),
    )


def parse_tail(answer: dict[str, Any]) -> tuple[bool, float | None]:
    """Whether any packet was there, and how long the recording is by the last ones."""
    packets = rows(answer.get("packets"))
    start = number(table(answer.get("format")).get("start_time")) or 0.0
    ends = [
        at + (_positive(packet.get("duration_time")) or 0.0) - start
        for packet in map(table, packets)
        if (at := number(packet.get("pts_time"))) is not None
    ]
    return bool(packets), _positive(max(ends, default=None))


def _tracks(
    streams: list[Any], undecodable: frozenset[int], protection: Protection
) -> Iterator[Track]:
    for position, stream in enumerate(map(table, streams)):
        tags, kind = table(stream.get("tags")), text(stream.get("codec_type"))
        told = number(stream.get("index"))
        index = position if told is None or told < 0 else int(told)
        is_video = kind == "video"
        profile, language = text(stream.get("profile")), text(tags.get("language"))
        yield Track(
            index=index,
            kind=kind if kind in _KINDS else "data",
            codec=codec_name(stream),
            profile=None if profile in ("", "unknown") else profile,
            width=count(stream.get("width")) or None,
            height=count(stream.get("height")) or None,
            frame_rate=_frame_rate(stream) if is_video else None,
            hdr=hdr(stream),
            rotation=_rotation(stream, tags) if is_video else None,
            channels=count(stream.get("channels")) or None,
            sample_rate=count(stream.get("sample_rate")) or None,
            language=None if language in ("", "und") else language,
            bit_rate=count(stream.get("bit_rate")) or None,
            is_cover=bool(count(table(stream.get("disposition")).get("attached_pic"))),
            is_encrypted=protection.covers(index) or bool(tags.get("enc_key_id")),
            is_supported=index not in undecodable,
        )


def _frame_rate(stream: dict[str, Any]) -> float | None:
    """The average, or what the container claims where nothing can be averaged."""
    rate = ratio(stream.get("avg_frame_rate")) or ratio(stream.get("r_frame_rate"))
    return round(float(rate), 3) or None if rate else None


def _rotation(stream: dict[str, Any], tags: dict[str, Any]) -> int:
    """An ffprobe of before 5.0 tells it in a tag."""
    told = rotation(stream)
    return round((number(tags.get("rotate")) or 0.0) / 90) * 90 % 360 if told is None else told


def _positive(value: object) -> float | None:
    found = number(value)
    return round(found, 6) if found is not None and found > 0 else None
