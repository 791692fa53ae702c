"""What the doctor makes of the programs' answers."""

import pytest

from cefmp4.commands.doctor_media import beside, examine_media, judge_encoder, judge_version
from cefmp4.model.diagnosis import Level
from cefmp4.proc import Finished

REFUSED = Finished(
    returncode=1,
    stdout=b"",
    stderr_tail="[hevc_nvenc @ 0x55d0] OpenEncodeSessionEx failed: unsupported device (2)\n"
    "[hevc_nvenc @ 0x55d0] No capable devices found\n",
)


def test_the_cause_is_the_first_line() -> None:
    diagnosis = judge_encoder("hevc_nvenc", REFUSED, has_gpu=True)
    assert diagnosis.level is Level.WARN
    assert diagnosis.detail == "OpenEncodeSessionEx failed: unsupported device (2)"


def test_no_gpu_is_no_fault() -> None:
    assert judge_encoder("hevc_nvenc", REFUSED, has_gpu=False).level is Level.OK


def test_a_missing_cpu_encoder_is_one() -> None:
    silent = Finished(returncode=1, stdout=b"", stderr_tail="")
    diagnosis = judge_encoder("libx264", silent, has_gpu=False)
    assert (diagnosis.level, diagnosis.detail) == (Level.WARN, "exit code 1")


def test_an_encoder_that_hangs() -> None:
    hung = Finished(returncode=-9, stdout=b"", stderr_tail="", timed_out=True)
    assert "time limit" in judge_encoder("libx265", hung, has_gpu=False).detail


@pytest.mark.parametrize(
    ("output", "level"),
    [
        ("ffmpeg version 5.1.9-0+deb12u1 Copyright", Level.OK),
        ("ffprobe version n7.1 Copyright", Level.OK),
        ("ffmpeg version N-112233-gabc Copyright", Level.OK),
        ("ffmpeg version 4.4.2-0ubuntu0 Copyright", Level.WARN),
        ("", Level.OK),
    ],
)
def test_version(output: str, level: Level) -> None:
    assert judge_version("ffmpeg", output).level is level


@pytest.mark.parametrize(
    ("ffprobe", "ffmpeg"),
    [("ffprobe", "ffmpeg"), ("/opt/ff/ffprobe", "/opt/ff/ffmpeg"), ("./ffprobe", "ffmpeg")],
)
def test_the_ffmpeg_that_belongs_to_it(ffprobe: str, ffmpeg: str) -> None:
    assert beside(ffprobe) == ffmpeg


async def test_programs_that_are_missing() -> None:
    found = await examine_media("/nowhere/ffprobe", 2**30)
    assert [(entry.subject, entry.level) for entry in found] == [
        ("ffprobe", Level.WARN),
        ("ffmpeg", Level.WARN),
    ]
