"""What the doctor makes of the programs' answers."""

from fractions import Fraction
from pathlib import Path

import pytest

from cefmp4.config.settings import Settings
from cefmp4.config.worker import GpuUse
from cefmp4.doctor.programs import examine_media, judge_encoder, judge_version
from cefmp4.hls.encoders import Tried, Works
from cefmp4.model.diagnosis import Level
from cefmp4.model.rendition import Codec, CodecChoice, Rendition

HDR = Rendition(
    name="hevc-720p",
    codec=Codec.HEVC,
    width=1280,
    height=720,
    frame_rate=Fraction(30),
    bit_depth=10,
    hdr="HLG",
    peak_kbps=4000,
)


def tried(encoder: str, works: Works) -> Tried:
    return Tried(encoder=encoder, works=works, reason="unsupported device (2)")


def test_a_gpu_that_cannot_encode() -> None:
    diagnosis = judge_encoder(tried("hevc_nvenc", Works.NEVER), HDR, has_gpu=True)
    assert (diagnosis.level, diagnosis.detail) == (Level.WARN, "unsupported device (2)")
    assert diagnosis.subject == "encoder hevc_nvenc, 10 bits"


def test_a_gpu_that_is_busy() -> None:
    diagnosis = judge_encoder(tried("hevc_nvenc", Works.NOT_NOW), HDR, has_gpu=True)
    assert "busy" in diagnosis.advice


def test_no_gpu_is_no_fault() -> None:
    permanent = tried("hevc_nvenc", Works.NEVER)
    assert judge_encoder(permanent, HDR, has_gpu=False).level is Level.OK


def test_a_missing_cpu_encoder_is_one() -> None:
    diagnosis = judge_encoder(tried("libx265", Works.NEVER), HDR, has_gpu=False)
    assert diagnosis.level is Level.WARN
    assert diagnosis.advice


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


FFMPEG = """#!/bin/sh
case "$*" in
    -version) echo "ffmpeg version 7.1 Copyright" ;;
    *libx264*) exit 0 ;;
    *) echo "Unknown encoder" >&2; exit 1 ;;
esac
echo "$@" >> "$0.asked"
"""


async def test_the_ffmpeg_of_the_settings_is_asked_with_the_options_of_jobs(tmp_path: Path) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text(FFMPEG)
    program.chmod(0o755)
    settings = Settings(
        ffmpeg_path=str(program),
        ffprobe_path="/nowhere/ffprobe",
        hls_gpu=GpuUse.OFF,
        hls_codec=CodecChoice.BOTH,
    )
    found = {entry.subject: entry for entry in await examine_media(settings)}
    assert found["ffprobe"].level is Level.WARN
    assert "FFPROBE_PATH" in found["ffprobe"].advice
    assert found["ffmpeg"].detail == "version 7.1"
    assert found["encoder libx265"].level is Level.WARN
    assert found["encoder libx265, 10 bits"].level is Level.WARN
    assert found["encoder libx264"].level is Level.OK
    assert not any("nvenc" in subject for subject in found)
    settings = Settings(ffmpeg_path=str(program), hls_codec=CodecChoice.H264)
    subjects = {entry.subject for entry in await examine_media(settings)}
    assert {subject for subject in subjects if "encoder" in subject} == {
        "encoder h264_nvenc",
        "encoder libx264",
    }


async def test_programs_that_are_missing() -> None:
    settings = Settings(ffmpeg_path="/nowhere/ffmpeg", ffprobe_path="/nowhere/ffprobe")
    found = await examine_media(settings)
    assert [(entry.subject, entry.level) for entry in found] == [
        ("ffprobe", Level.WARN),
        ("ffmpeg", Level.WARN),
    ]
    assert "FFMPEG_PATH" in found[1].advice
