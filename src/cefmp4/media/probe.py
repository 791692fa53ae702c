"""Looks into one open file: what is in it, and whether it plays."""

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from cefmp4.errors import PermanentError
from cefmp4.media.ffprobe import LAST_PACKETS, Ffprobe, ProbeTimeoutError, document_of
from cefmp4.media.ffprobe_json import (
    codec_name,
    count,
    hdr,
    number,
    ratio,
    rotation,
    table,
    tables,
    text,
)
from cefmp4.media.protection import Protection, find_protection
from cefmp4.media.source import MediaSource, UnusableSourceError
from cefmp4.media.stderr import printable
from cefmp4.media.structure import find_problem
from cefmp4.model.media import MediaInfo, Track
from cefmp4.model.part import MIB

MAX_ANSWER_BYTES = 4 * MIB  # the service that sends recordings has little memory to give
_STREAM_FIELDS = (
    "index,codec_type,codec_name,codec_tag_string,profile,width,height,avg_frame_rate,r_frame_rate,"
    "color_transfer,channels,sample_rate,bit_rate,duration"
)
_HEADER_QUESTIONS = (
    "-show_entries",
    f"format=format_name,duration,bit_rate:stream={_STREAM_FIELDS}"
    ":stream_tags=language,rotate,enc_key_id:stream_disposition=attached_pic:stream_side_data=rotation",
)
# A recorder that was killed leaves no duration in the header.
_TAIL_QUESTIONS = (
    *("-read_intervals", LAST_PACKETS),
    *("-show_entries", "packet=pts_time,duration_time:format=start_time"),
)
# Raw streams have no times to seek by; still, one packet shows that there is media.
_FIRST_PACKET_QUESTIONS = ("-read_intervals", "%+#1", "-show_entries", "packet=pts_time")
_KINDS = frozenset({"video", "audio", "subtitle", "data", "attachment"})
_UNPROTECTED = Protection()
_MAX_TRACKS = 1000
_UNSUPPORTED = re.compile(r"Unsupported codec with id \d+ for input stream (\d+)")
_ENCRYPTED = "it is encrypted"


@dataclass(frozen=True, slots=True)
class FfprobeMediaProbe:
    """Implements the MediaProbe port. It never raises for what the file is or contains."""

    ffprobe: Ffprobe

    async def probe(self, fd: int) -> MediaInfo:
        try:
            problem = await asyncio.to_thread(find_problem, fd)
            protection = await asyncio.to_thread(find_protection, fd)
            source = MediaSource.of_file(fd)
        except OSError as error:
            return MediaInfo(reason=f"the file cannot be read: {printable(str(error))}")
        try:
            # Which tracks it has no decoder for is a warning to ffprobe.
            told = await self.ffprobe.run(source, _HEADER_QUESTIONS, loudness="level+warning")
            answer = document_of(told.stdout)
        except (PermanentError, ProbeTimeoutError) as error:
            problem = problem or (_ENCRYPTED if protection.is_any else "")
            is_bad = bool(problem) or isinstance(error, UnusableSourceError)
            return MediaInfo(playable=False if is_bad else None, reason=problem or str(error))
        media = parse_header(answer, told.stderr_tail, protection)
        if obstacle := problem or _obstacle(media):
            return replace(media, playable=False, reason=obstacle)
        if media.duration_seconds is not None:
            return replace(media, playable=True)
        return await self._measured(media, source)

    async def _measured(self, media: MediaInfo, source: MediaSource) -> MediaInfo:
        for questions in (_TAIL_QUESTIONS, _FIRST_PACKET_QUESTIONS):
            try:
                answer = await self.ffprobe.ask(source, questions)
            except ProbeTimeoutError:
                return replace(media, reason="its duration could not be found out in time")
            except PermanentError:
                continue
            has_media, duration = parse_tail(answer)
            if has_media:
                return replace(media, playable=True, duration_seconds=duration)
        return replace(media, playable=False, reason="there is a header, but no media behind it")


def _obstacle(media: MediaInfo) -> str:
    """Why none of it can be decoded, although the file may be perfect; "" where some can."""
    tracks = media.main_tracks
    if not tracks:
        return "there is no video or audio track"
    if any(track.is_supported and not track.is_encrypted for track in tracks):
        return ""
    if any(track.is_encrypted for track in tracks):
        return _ENCRYPTED
    return f"codec {tracks[0].codec} is not supported by this ffmpeg"


def parse_header(
    answer: dict[str, Any], said: str = "", protection: Protection = _UNPROTECTED
) -> MediaInfo:
    """Everything but whether it plays. `said`: on stderr."""
    container, streams = table(answer.get("format")), tables(answer.get("streams"))[:_MAX_TRACKS]
    undecodable = frozenset(int(index) for index in _UNSUPPORTED.findall(said))
    durations = (_positive(stream.get("duration")) for stream in streams)
    longest = max((seconds for seconds in durations if seconds), default=None)
    return MediaInfo(
        container=text(container.get("format_name")) or None,
        duration_seconds=_positive(container.get("duration")) or longest,
        bit_rate=count(container.get("bit_rate")) or None,
        tracks=tuple(_tracks(streams, undecodable, protection)),
    )


def parse_tail(answer: dict[str, Any]) -> tuple[bool, float | None]:
    """Whether any packet was there, and how long the recording is by the last ones."""
    packets = tables(answer.get("packets"))
    start = number(table(answer.get("format")).get("start_time")) or 0.0
    ends = [
        at + (_positive(packet.get("duration_time")) or 0.0) - start
        for packet in packets
        if (at := number(packet.get("pts_time"))) is not None
    ]
    return bool(packets), _positive(max(ends, default=None))


def _tracks(
    streams: list[dict[str, Any]], undecodable: frozenset[int], protection: Protection
) -> Iterator[Track]:
    for position, stream in enumerate(streams):
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
