"""What one encode is given, what it may cost, and what it yields."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from cefmp4.hls.result import Progress, StoredTrack, Tier
from cefmp4.hls.thumbnails import SpritePlan
from cefmp4.media.ffmpeg_run import FfmpegRun, Pace, RunLimits
from cefmp4.media.ffprobe import Ffprobe
from cefmp4.media.source import MediaSource
from cefmp4.outputs.sink import SegmentSink

_MAX_IMAGE_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeLimits:
    """`slowest_speed`: recorded seconds per second below which an encode is given up."""

    slowest_speed: float = 0.02
    grace_s: float = 120.0
    stall_s: float = 60.0
    memory_bytes: int | None = None

    def of(self, duration_s: float) -> RunLimits:
        return RunLimits(
            total_s=self.grace_s + duration_s / self.slowest_speed,
            stall_s=self.stall_s,
            memory_bytes=self.memory_bytes,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Encode:
    """What one encode reads, where it puts it, who wants to know, and what it may use."""

    source: MediaSource
    sink: SegmentSink
    progress: Callable[[Progress], None]
    cancel: asyncio.Event | None = None
    program: str = "ffmpeg"
    ffprobe: Ffprobe = field(default_factory=Ffprobe)
    limits: EncodeLimits = field(default_factory=EncodeLimits)

    def run(self, duration_s: float) -> FfmpegRun:
        def report(pace: Pace) -> None:
            self.progress(_progress(pace, duration_s, self.sink.stored_bytes))

        return FfmpegRun(
            limits=self.limits.of(duration_s),
            on_pace=report,
            cancel=self.cancel,
            pass_fds=self.source.pass_fds,
            environment=self.source.environment,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """A sprite of thumbnails as planned, and a poster."""

    sprite: bytes = b""
    poster: bytes = b""
    plan: SpritePlan | None = None
    errors: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """`errors`: how often ffmpeg complained and went on; `notes`: what is not as in the
    source."""

    tier: Tier
    tracks: tuple[StoredTrack, ...]
    errors: int
    notes: tuple[str, ...] = ()
    fallbacks: tuple[str, ...] = ()
    images: Images = field(default_factory=Images)


@dataclass(slots=True)
class ImagePump:
    data: bytearray = field(default_factory=bytearray)

    async def pump(self, pipe: asyncio.StreamReader) -> None:
        while piece := await pipe.read(_MAX_IMAGE_BYTES):
            if len(self.data) < _MAX_IMAGE_BYTES:
                self.data += piece


def _progress(pace: Pace, duration_s: float, stored_bytes: int) -> Progress:
    left_s = max(0.0, duration_s - pace.out_time_s)
    return Progress(
        fraction=min(1.0, pace.out_time_s / duration_s) if duration_s else 0.0,
        out_time_s=pace.out_time_s,
        speed=pace.speed,
        fps=pace.fps,
        eta_s=left_s / pace.speed if pace.speed > 0 else None,
        stored_bytes=stored_bytes,
    )
