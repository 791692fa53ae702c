"""What a media file contains, as probed."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """One track; fields that do not apply to its kind, or that the file does not tell, are None."""

    index: int
    kind: str  # video, audio, subtitle, data
    codec: str
    profile: str | None = None
    width: int | None = None
    height: int | None = None
    frame_rate: float | None = None
    hdr: str | None = None  # PQ, HLG
    rotation: int | None = None
    channels: int | None = None
    sample_rate: int | None = None
    language: str | None = None
    bit_rate: int | None = None
    is_cover: bool = False  # an attached picture, which is no video


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaInfo:
    """`playable` False comes with the reason; None means that nobody could find out."""

    container: str | None = None
    duration_seconds: float | None = None
    bit_rate: int | None = None
    tracks: tuple[Track, ...] = field(default=())
    playable: bool | None = None
    reason: str = ""
