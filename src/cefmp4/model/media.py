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
    is_encrypted: bool = False
    is_supported: bool = True  # by the decoders of the ffmpeg that was asked


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaInfo:
    """`playable` False comes with the reason; None means that nobody could find out."""

    container: str | None = None
    duration_seconds: float | None = None
    bit_rate: int | None = None
    tracks: tuple[Track, ...] = field(default=())
    playable: bool | None = None
    reason: str = ""

    @property
    def main_tracks(self) -> tuple[Track, ...]:
        """Those that make it a recording: its pictures, or its sound where it has no pictures."""
        pictures = tuple(t for t in self.tracks if t.kind == "video" and not t.is_cover)
        return pictures or tuple(t for t in self.tracks if t.kind == "audio")
