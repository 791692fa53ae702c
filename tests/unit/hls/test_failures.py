"""Whose fault it was that ffmpeg failed: the recording's, the GPU's, a server's, or the day's."""

import pytest

from cefmp4.errors import CefError, PermanentError, ServerUnreachableError, TransientError
from cefmp4.hls.encoders import EncoderChooser
from cefmp4.hls.failures import check_complete, check_exit
from cefmp4.media.ffmpeg_run import FfmpegRun, Pace, RunLimits
from cefmp4.media.source import MediaSource, UnusableSourceError
from cefmp4.media.stderr import Stderr

CPU, GPU = None, EncoderChooser(program="ffmpeg")
FILE, URL = MediaSource(fd=0), MediaSource(url="http://127.0.0.1/x?X-Amz-Signature=hidden")
GONE = "[https @ 0x1] [error] HTTP error 404 Not Found\n"
AWAY = "[tcp @ 0x1] [error] Connection to tcp://127.0.0.1 failed: Connection refused\n"


def ended(returncode: int, said: str) -> FfmpegRun:
    complaints = Stderr()
    complaints.add(said.encode())
    run = FfmpegRun(RunLimits(), Pace(), lambda _pace: None, stderr=complaints)
    run.returncode = returncode
    return run


@pytest.mark.parametrize(
    ("returncode", "gpu", "source", "said", "kind", "words"),
    [
        (1, CPU, FILE, "[libx265 @ 0x1] [error] no such profile\n", PermanentError, "no such"),
        (1, CPU, FILE, "", PermanentError, "ffmpeg ended with 1"),
        (-9, CPU, FILE, "", TransientError, "killed by signal 9"),
        (-11, CPU, FILE, "", PermanentError, "crashed on it (signal 11)"),
        (1, GPU, FILE, "[error] OpenEncodeSessionEx failed\n", TransientError, "the GPU failed"),
        (-11, GPU, FILE, "", TransientError, "the GPU failed"),
        (1, CPU, URL, GONE, UnusableSourceError, "no such object"),
        (1, CPU, URL, AWAY, ServerUnreachableError, "out of reach"),
        (1, CPU, FILE, AWAY, PermanentError, "Connection refused"),
    ],
)
def test_who_is_to_blame(
    returncode: int,
    gpu: EncoderChooser | None,
    source: MediaSource,
    said: str,
    kind: type[CefError],
    words: str,
) -> None:
    with pytest.raises(CefError) as caught:
        check_exit(ended(returncode, said), source, gpu)
    assert type(caught.value) is kind
    assert words in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_what_ended_well_is_not_judged() -> None:
    check_exit(ended(0, ""), FILE, GPU)


def test_what_is_missing_of_an_object_may_come_next_time() -> None:
    check_complete([], FILE)
    problems = [f"audio-{number} is empty" for number in range(9)]
    with pytest.raises(PermanentError, match=r"complete: audio-0 is empty; .*audio-3 is empty$"):
        check_complete(problems, FILE)
    with pytest.raises(TransientError):
        check_complete(problems, URL)
