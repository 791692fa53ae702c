"""Whose fault it was that ffmpeg failed, or that something is missing: the recording's, the GPU's,
a server's, or the day's."""

import re
import signal
from collections.abc import Sequence

from cefmp4.errors import CefError, PermanentError, TransientError
from cefmp4.hls.encoders import EncoderChooser
from cefmp4.media.ffmpeg_run import FfmpegRun
from cefmp4.media.source import MediaSource
from cefmp4.media.stderr import Stderr, check_reached, last_line

_CRASHES = {signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL}
_NO_DECODER = re.compile(
    r"(?:[Dd]ecoder[^\n]*input stream #0:|\[[av]ist#0:(?=[^\n]*no decoder found))(\d+)"
)
_TOLD_PROBLEMS = 4


class UndecodableTrackError(CefError):
    """ffmpeg has no decoder for a track, or it refuses what the track's header says."""

    def __init__(self, index: int) -> None:
        super().__init__(f"track {index} cannot be decoded")
        self.index = index


def check_decoders(said: Stderr) -> None:
    if found := _NO_DECODER.search(said.head + said.tail):
        raise UndecodableTrackError(int(found[1]))


def check_exit(ended: FfmpegRun, source: MediaSource, gpu: EncoderChooser | None = None) -> None:
    """`gpu`: whom to tell, where a GPU had a part in it."""
    if ended.returncode == 0:
        return
    said = ended.stderr
    has_crashed = -ended.returncode in _CRASHES
    if ended.returncode < 0 and not has_crashed:
        raise TransientError(f"ffmpeg was killed by signal {-ended.returncode}")
    check_decoders(said)
    if gpu:
        # Whose fault it is the CPU will tell, in the next attempt.
        raise TransientError(f"the GPU failed in the middle: {gpu.report_failure(said.head)}")
    if has_crashed:
        raise PermanentError(f"ffmpeg crashed on it (signal {-ended.returncode})")
    if source.is_remote:
        check_reached(said.head + said.tail)
    raise PermanentError(f"ffmpeg cannot encode it: {last_words(ended)}")


def last_words(ended: FfmpegRun) -> str:
    return last_line(ended.stderr.tail) or f"ffmpeg ended with {ended.returncode}"


def check_complete(problems: Sequence[str], source: MediaSource) -> None:
    """What a local file lacks it will lack again; a server may send the rest next time."""
    if problems:
        kind = TransientError if source.is_remote else PermanentError
        raise kind("what came out is not complete: " + "; ".join(problems[:_TOLD_PROBLEMS]))
