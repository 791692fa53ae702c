"""What an encode yields: rows of segments, the playlists' facts, and the document beside them."""

import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from cefmp4.errors import CefError
from cefmp4.hls.encoders import Tried
from cefmp4.hls.fragments import KeyFrame
from cefmp4.hls.thumbnails import Images
from cefmp4.media.fragment_boxes import TrackHeader

SCHEMA_VERSION = 1


class Tier(StrEnum):
    """What a job needs: none of the slots, the GPU's or the CPU's."""

    COPY = "copy"
    GPU = "gpu"
    CPU = "cpu"


class NeedsEncoderError(CefError):
    """The recording cannot be copied, and this attempt may do no more than that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentRow:
    """One stored segment; `start` and `end` in seconds of the recording."""

    index: int
    start: float
    end: float
    bytes: int
    key: str
    bucket: str
    size: str  # 1280x720; "" for audio
    fps: float | None
    codec: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTrack:
    """One rendition, or one audio track, as it lies in the store: one segment at least."""

    name: str
    folder: str
    header: TrackHeader
    rows: tuple[SegmentRow, ...]
    key_frames: tuple[tuple[KeyFrame, ...], ...]  # by segment
    frames: int
    encoder: str = ""
    hdr: str | None = None
    language: str = ""

    @property
    def is_video(self) -> bool:
        return self.header.kind == "video"

    @property
    def duration_s(self) -> float:
        return self.end_s - self.rows[0].start

    @property
    def end_s(self) -> float:
        return self.rows[-1].end

    @property
    def total_bytes(self) -> int:
        return sum(row.bytes for row in self.rows)

    @property
    def frame_rate(self) -> float:
        return self.frames / self.duration_s if self.duration_s else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HlsResult:
    """What was made of a recording, and, once that is described, where. `not_copied`: why the
    source was not taken as it is; `fallbacks`: why not a better encoder. `errors` counts what
    ffmpeg called errors and went on from; `notes` tell what is not as it is in the source."""

    tier: Tier
    tracks: tuple[StoredTrack, ...]
    images: Images = field(default_factory=Images)
    not_copied: tuple[str, ...] = ()
    fallbacks: tuple[Tried, ...] = ()
    errors: int = 0
    notes: tuple[str, ...] = ()
    stream_id: str = ""
    bucket: str = ""
    master_key: str = ""
    poster_key: str = ""
    thumbnails_key: str = ""
    seconds: float = 0.0

    @property
    def duration_s(self) -> float:
        return self.tracks[0].end_s if self.tracks else 0.0

    @property
    def warning_texts(self) -> tuple[str, ...]:
        broken = (f"{self.errors} errors in what was decoded or copied",) if self.errors else ()
        return (*self.notes, *broken)

    @property
    def warnings(self) -> int:
        return self.errors + len(self.notes)

    @property
    def speed(self) -> float:
        """Recorded seconds per second."""
        return self.duration_s / self.seconds if self.seconds else 0.0


def document(result: HlsResult) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "stream_id": result.stream_id,
        "bucket": result.bucket,
        "tier": result.tier,
        "duration_seconds": round(result.duration_s, 6),
        "master_key": result.master_key,
        "poster_key": result.poster_key or None,
        "thumbnails_key": result.thumbnails_key or None,
        "total_bytes": sum(track.total_bytes for track in result.tracks),
        "encode_seconds": round(result.seconds, 3),
        "speed": round(result.speed, 3),
        "warnings": result.warnings,
        "warning_texts": list(result.warning_texts),
        "not_copied_because": list(result.not_copied),
        "fallbacks": [str(tried) for tried in result.fallbacks],
        "renditions": [_track_document(track) for track in result.tracks],
    }


def as_json(result: HlsResult) -> bytes:
    return json.dumps(document(result), separators=(",", ":"), ensure_ascii=False).encode()


def _track_document(track: StoredTrack) -> dict[str, Any]:
    return {
        "name": track.name,
        "kind": track.header.kind,
        "playlist": f"{track.folder}/index.m3u8",
        "codec": track.header.codec,
        "encoder": track.encoder,
        "width": track.header.width or None,
        "height": track.header.height or None,
        "fps": round(track.frame_rate, 3) if track.is_video else None,
        "hdr": track.hdr,
        "language": track.language or None,
        "duration_seconds": round(track.duration_s, 6),
        "bytes": track.total_bytes,
        "segments": [asdict(row) for row in track.rows],
    }
