"""The texts of the playlists, from what was really stored: every duration, bandwidth and codec in
them is measured. Pure."""

from collections.abc import Sequence

from cefmp4.hls.result import StoredTrack

INIT = "init.mp4"
MEDIA = "index.m3u8"
KEY_FRAMES = "iframes.m3u8"
_AUDIO_GROUP = "audio"
_VERSION = 7


def segment_name(index: int) -> str:
    return f"seg_{index:05d}.m4s"


def target_duration(tracks: Sequence[StoredTrack]) -> int:
    """One for all tracks: audio and video must have the same."""
    longest = max((row.end - row.start for track in tracks for row in track.rows), default=1.0)
    return max(1, int(longest + 0.5))


def media_playlist(track: StoredTrack, target_s: int) -> str:
    lines = [*_head(target_s), f'#EXT-X-MAP:URI="{INIT}"']
    for row in track.rows:
        lines += [f"#EXTINF:{row.end - row.start:.6f},", segment_name(row.index)]
    return _text([*lines, "#EXT-X-ENDLIST"])


def key_frame_playlist(track: StoredTrack, target_s: int) -> str:
    """For seeking with pictures: each entry is a range that begins with its moof."""
    lines = [*_head(target_s), "#EXT-X-I-FRAMES-ONLY", f'#EXT-X-MAP:URI="{INIT}"']
    for row, key_frames in zip(track.rows, track.key_frames, strict=True):
        for frame in key_frames:
            lines += [
                f"#EXTINF:{frame.duration / track.header.timescale:.6f},",
                f"#EXT-X-BYTERANGE:{frame.size}@{frame.offset}",
                segment_name(row.index),
            ]
    return _text([*lines, "#EXT-X-ENDLIST"])


def master_playlist(tracks: Sequence[StoredTrack]) -> str:
    videos = [track for track in tracks if track.is_video]
    audios = [track for track in tracks if not track.is_video]
    lines = ["#EXTM3U", f"#EXT-X-VERSION:{_VERSION}", "#EXT-X-INDEPENDENT-SEGMENTS"]
    if videos or len(audios) > 1:
        lines += [_audio_media(position, track) for position, track in enumerate(audios)]
    # Without pictures, the first sound is what plays, alone or in place of one of the others.
    for main in videos or audios[:1]:
        lines += [_variant(main, audios), f"{main.folder}/{MEDIA}"]
    lines += [_key_frame_variant(video) for video in videos]
    return _text(lines)


def peak_bandwidth(track: StoredTrack) -> int:
    """Bits per second of the busiest stretch. A stretch is a segment; one much shorter than the
    others counts together with the one before it, or a last single frame would be the peak."""
    rows = track.rows
    typical = max((row.end - row.start for row in rows), default=0.0)
    peak = 0.0
    for position, row in enumerate(rows):
        size, length = row.bytes, row.end - row.start
        if length < typical / 2 and position:
            before = rows[position - 1]
            size, length = size + before.bytes, length + before.end - before.start
        peak = max(peak, size * 8 / max(length, 0.001))
    return max(1, round(peak))


def average_bandwidth(track: StoredTrack) -> int:
    return max(1, round(track.total_bytes * 8 / max(track.duration_s, 0.001)))


def _head(target_s: int) -> list[str]:
    return [
        "#EXTM3U",
        f"#EXT-X-VERSION:{_VERSION}",
        f"#EXT-X-TARGETDURATION:{target_s}",
        "#EXT-X-MEDIA-SEQUENCE:0",
        "#EXT-X-PLAYLIST-TYPE:VOD",
        "#EXT-X-INDEPENDENT-SEGMENTS",
    ]


def _audio_media(position: int, track: StoredTrack) -> str:
    language = _language(track.language)
    name = f"{language or 'audio'} {position + 1}"
    attributes = [
        "TYPE=AUDIO",
        f'GROUP-ID="{_AUDIO_GROUP}"',
        f'NAME="{name}"',
        *([f'LANGUAGE="{language}"'] if language else []),
        f"DEFAULT={'NO' if position else 'YES'}",
        "AUTOSELECT=YES",
        f'CHANNELS="{track.header.channels}"',
        f'URI="{track.folder}/{MEDIA}"',
    ]
    return "#EXT-X-MEDIA:" + ",".join(attributes)


def _variant(main: StoredTrack, audios: Sequence[StoredTrack]) -> str:
    others = audios if main.is_video else ()
    peak = peak_bandwidth(main) + max(map(peak_bandwidth, others), default=0)
    average = average_bandwidth(main) + max(map(average_bandwidth, others), default=0)
    codecs = dict.fromkeys([main.header.codec, *(audio.header.codec for audio in audios)])
    attributes = [
        f"BANDWIDTH={peak}",
        f"AVERAGE-BANDWIDTH={min(average, peak)}",
        f'CODECS="{",".join(codecs)}"',
        *(_picture_attributes(main) if main.is_video else ()),
        *([f'AUDIO="{_AUDIO_GROUP}"'] if len(audios) > (not main.is_video) else []),
    ]
    return "#EXT-X-STREAM-INF:" + ",".join(attributes)


def _picture_attributes(video: StoredTrack) -> list[str]:
    return [
        f"RESOLUTION={video.header.width}x{video.header.height}",
        f"FRAME-RATE={video.frame_rate:.3f}",
        f"VIDEO-RANGE={video.hdr or 'SDR'}",
    ]


def _key_frame_variant(video: StoredTrack) -> str:
    frames = [frame for key_frames in video.key_frames for frame in key_frames]
    rates = [frame.size * 8 * video.header.timescale / max(frame.duration, 1) for frame in frames]
    attributes = [
        f"BANDWIDTH={max(1, round(max(rates, default=1.0)))}",
        f'CODECS="{video.header.codec}"',
        f"RESOLUTION={video.header.width}x{video.header.height}",
        f"VIDEO-RANGE={video.hdr or 'SDR'}",
        f'URI="{video.folder}/{KEY_FRAMES}"',
    ]
    return "#EXT-X-I-FRAME-STREAM-INF:" + ",".join(attributes)


def _language(tag: str) -> str:
    """Only what is a language tag gets into an attribute between quotes."""
    plain = tag.replace("-", "").isalnum() and tag.isascii() and 2 <= len(tag) <= 16
    return "" if not plain or tag == "und" else tag


def _text(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"
