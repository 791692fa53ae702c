"""What one encode is given, what it may cost, and whether what it yields is all there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cefmp4.hls import gate
from cefmp4.hls.encoders import EncoderChooser
from cefmp4.hls.examined import Examined
from cefmp4.hls.failures import check_complete
from cefmp4.hls.ffmpeg import picture
from cefmp4.hls.gate import Stored
from cefmp4.hls.lengths import remeasured
from cefmp4.hls.track_pump import TrackPump
from cefmp4.media.ffmpeg_run import FfmpegRun, Pace, RunLimits
from cefmp4.media.ffprobe import Ffprobe
from cefmp4.media.pipe import Pipe
from cefmp4.media.source import MediaSource
from cefmp4.model.rendition import RUNGS, CodecChoice
from cefmp4.outputs.sink import SegmentSink

_MAX_IMAGE_BYTES = 32 * 1024 * 1024
_READ_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class HlsOptions:
    program: str = "ffmpeg"
    codecs: CodecChoice = CodecChoice.BOTH
    rungs: tuple[int, ...] = RUNGS
    may_copy: bool = True
    has_thumbnails: bool = True
    ffprobe: Ffprobe = field(default_factory=Ffprobe)
    limits: RunLimits = field(default_factory=RunLimits)
    images_patience_s: float = 30.0  # after a copy is done
    timeout_s: float = 168 * 3600.0  # of all that is done for one recording; less for few bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Encode:
    """What one encode reads, where it puts it, who wants to know, and what it may use."""

    source: MediaSource
    sink: SegmentSink
    progress: Callable[[Pace], None]
    chooser: EncoderChooser
    options: HlsOptions

    def run(self, length_s: float) -> FfmpegRun:
        return FfmpegRun(
            limits=self.options.limits,
            pace=Pace(length_s=length_s),
            on_pace=self.progress,
            pass_fds=self.source.pass_fds,
            environment=self.source.environment,
        )


class ImagePump:
    """Takes the picture that ffmpeg makes under a label."""

    def __init__(self, label: str) -> None:
        self.options = picture(label)
        self.data = b""

    async def pump(self, pipe: Pipe) -> None:
        while piece := await pipe.read(_READ_BYTES):
            if len(self.data) < _MAX_IMAGE_BYTES:
                self.data += piece


async def complete(encode: Encode, examined: Examined, pumps: Sequence[TrackPump]) -> Stored:
    """What came out, by name, once it is known to be all. Of a guess, the source is measured."""
    stored = {pump.name: pump.stored() for pump in pumps}
    torn = [f"{pump.name} is torn" for pump in pumps if pump.is_torn]
    problems = torn or gate.problems(examined, stored)
    # From a server only what ffmpeg got would be measured again, perhaps cut off at the same
    # place.
    if problems and not torn and examined.is_length_a_guess and not encode.source.is_remote:
        told = await remeasured(encode.source, examined, encode.options.ffprobe)
        problems = gate.problems(told, stored)
    check_complete(problems, encode.source)
    return stored
