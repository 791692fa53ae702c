"""Whose fault it was that ffmpeg failed: the recording's, the GPU's, a server's, or the day's."""

import pytest
from tests.fakes import FakeObjectStore

from cefmp4.errors import CefError, PermanentError, ServerUnreachableError, TransientError
from cefmp4.hls.encode import Encode
from cefmp4.hls.encoders import Choice, EncoderChooser
from cefmp4.hls.track_maker import Maker
from cefmp4.media.ffmpeg_run import FfmpegExit
from cefmp4.media.source import MediaSource, UnusableSourceError
from cefmp4.media.stderr import Stderr
from cefmp4.outputs.sink import SegmentSink

CPU, GPU = Choice(encoders=("libx265",)), Choice(encoders=("hevc_nvenc",))
FILE, URL = MediaSource(fd=0), MediaSource(url="http://127.0.0.1/x?X-Amz-Signature=hidden")
GONE = "[https @ 0x1] [error] HTTP error 404 Not Found\n"
AWAY = "[tcp @ 0x1] [error] Connection to tcp://127.0.0.1 failed: Connection refused\n"


@pytest.mark.parametrize(
    ("returncode", "choice", "source", "said", "kind", "words"),
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
    choice: Choice,
    source: MediaSource,
    said: str,
    kind: type[CefError],
    words: str,
) -> None:
    sink = SegmentSink(FakeObjectStore(), stream_id="s1", bucket="b", attempt="1")
    job = Encode(source=source, sink=sink, progress=lambda _progress: None)
    complaints = Stderr()
    complaints.add(said.encode())
    maker = Maker(program="ffmpeg", chooser=EncoderChooser(program="ffmpeg"))
    with pytest.raises(CefError) as caught:
        maker._judge(job, FfmpegExit(returncode=returncode, stderr=complaints), choice)
    assert type(caught.value) is kind
    assert words in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_what_ended_well_is_not_judged() -> None:
    sink = SegmentSink(FakeObjectStore(), stream_id="s1", bucket="b", attempt="1")
    job = Encode(source=FILE, sink=sink, progress=lambda _progress: None)
    maker = Maker(program="ffmpeg", chooser=EncoderChooser(program="ffmpeg"))
    maker._judge(job, FfmpegExit(returncode=0, stderr=Stderr()), CPU)
