"""The real ffprobe on real recordings, whole and broken."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from cefmp4.media.ffprobe import Ffprobe
from cefmp4.media.probe import FfprobeMediaProbe
from cefmp4.model.media import MediaInfo
from cefmp4.model.part import MIB

pytestmark = pytest.mark.skipif(
    not (shutil.which("ffmpeg") and shutil.which("ffprobe")), reason="needs ffmpeg and ffprobe"
)
FRAGMENTED = ["-movflags", "frag_keyframe+empty_moov"]


def ffmpeg(*arguments: str | Path) -> None:
    subprocess.run(["ffmpeg", "-v", "error", "-nostdin", "-y", *arguments], check=True, timeout=60)


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds, 25 frames a second, with two audio tracks in two languages."""
    path = tmp_path_factory.mktemp("recording") / "whole.mp4"
    ffmpeg(
        *("-f", "lavfi", "-i", "testsrc=s=320x240:r=25", "-f", "lavfi", "-i", "sine"),
        *("-t", "4", "-map", "0:v", "-map", "1:a", "-map", "1:a", "-ac:a:1", "2"),
        *("-c:v", "libx264", "-preset", "ultrafast", "-g", "25", "-c:a", "aac"),
        *("-metadata:s:a:0", "language=deu", "-metadata:s:a:1", "language=fra", path),
    )
    return path


def probe_of(**changed: object) -> FfprobeMediaProbe:
    limits = {"timeout_s": 20, "memory_bytes": 1024 * MIB, **changed}
    return FfprobeMediaProbe(Ffprobe(**limits))  # type: ignore[arg-type]  # the limits of one test


async def look(path: Path, **changed: object) -> MediaInfo:
    with path.open("rb") as file:
        return await probe_of(**changed).probe(file.fileno())


def remuxed(recording: Path, target: Path, *options: str) -> Path:
    ffmpeg("-i", recording, "-map", "0", "-c", "copy", *options, target)
    return target


def cut(source: Path, target: Path, share: float) -> Path:
    data = source.read_bytes()
    target.write_bytes(data[: int(len(data) * share)])
    return target


async def test_a_whole_recording(recording: Path) -> None:
    media = await look(recording)
    assert (media.playable, media.reason) == (True, "")
    assert media.container == "mov,mp4,m4a,3gp,3g2,mj2"
    assert media.duration_seconds == pytest.approx(4.0, abs=0.1)
    video, first, second = media.tracks
    assert (video.codec, video.width, video.height, video.frame_rate) == ("h264", 320, 240, 25.0)
    assert (first.language, first.channels) == ("deu", 1)
    assert (second.language, second.channels) == ("fra", 2)


async def test_an_open_descriptor_outlives_its_name(recording: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    shutil.copy(recording, path)
    fd = os.open(path, os.O_RDONLY)
    try:
        path.unlink()
        media = await probe_of().probe(fd)
        assert os.lseek(fd, 0, os.SEEK_CUR) == 0
    finally:
        os.close(fd)
    assert media.playable


async def test_descriptors_are_given_back(recording: Path, tmp_path: Path) -> None:
    await look(recording)
    before = len(os.listdir("/proc/self/fd"))
    (tmp_path / "empty").touch()
    for path in (recording, tmp_path / "empty"):
        await look(path)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("name", ["a.mkv", "a.ts", "a.flv", "a.mov", "a.avi"])
async def test_other_containers(recording: Path, tmp_path: Path, name: str) -> None:
    ffmpeg("-i", recording, "-map", "0:v", "-map", "0:a:0", "-c", "copy", tmp_path / name)
    media = await look(tmp_path / name)
    assert media.playable, media.reason
    assert media.duration_seconds == pytest.approx(4.0, abs=0.2)


async def test_what_a_killed_recorder_leaves_in_fragments_plays(
    recording: Path, tmp_path: Path
) -> None:
    whole = remuxed(recording, tmp_path / "f.mp4", *FRAGMENTED)
    media = await look(cut(whole, tmp_path / "cut.mp4", 0.7))
    assert media.playable, media.reason
    assert 1.5 < (media.duration_seconds or 0) < 3.5


@pytest.mark.parametrize(
    ("name", "options"),
    [("l.mkv", ["-live", "1"]), ("l.flv", ["-flvflags", "no_duration_filesize"])],
)
async def test_the_duration_is_measured_where_no_header_tells_it(
    recording: Path, tmp_path: Path, name: str, options: list[str]
) -> None:
    ffmpeg("-i", recording, "-map", "0:v", "-map", "0:a:0", "-c", "copy", *options, tmp_path / name)
    media = await look(cut(tmp_path / name, tmp_path / f"cut{name}", 0.7))
    assert media.playable, media.reason
    assert 1.5 < (media.duration_seconds or 0) < 3.5


async def test_a_raw_stream_has_no_duration(recording: Path, tmp_path: Path) -> None:
    ffmpeg("-i", recording, "-map", "0:v", "-c", "copy", tmp_path / "raw.h264")
    media = await look(tmp_path / "raw.h264")
    assert (media.playable, media.duration_seconds) == (True, None)


@pytest.mark.parametrize("share", [0.0, 0.0005, 0.3, 0.9, 0.999])
async def test_a_cut_mp4_is_not_playable(recording: Path, tmp_path: Path, share: float) -> None:
    media = await look(cut(recording, tmp_path / "cut.mp4", share))
    assert media.playable is False
    assert media.reason


@pytest.mark.parametrize("name", ["fast.mp4", "a.mkv"])
async def test_a_lost_end_is_noticed(recording: Path, tmp_path: Path, name: str) -> None:
    whole = remuxed(recording, tmp_path / name, *(["-movflags", "faststart"] * name.endswith("4")))
    media = await look(cut(whole, tmp_path / f"cut-{name}", 0.8))
    assert media.playable is False
    assert "truncated" in media.reason
    assert media.tracks  # what is known is told


async def test_a_header_without_media(recording: Path, tmp_path: Path) -> None:
    data = remuxed(recording, tmp_path / "f.mp4", *FRAGMENTED).read_bytes()
    (tmp_path / "header.mp4").write_bytes(data[: data.index(b"moof") - 4])
    media = await look(tmp_path / "header.mp4")
    assert (media.playable, media.reason) == (False, "there is a header, but no media behind it")


async def test_a_picture_in_a_song_is_no_video(tmp_path: Path) -> None:
    ffmpeg("-f", "lavfi", "-i", "testsrc=s=64x64", "-frames:v", "1", tmp_path / "cover.png")
    ffmpeg(
        *("-f", "lavfi", "-i", "sine", "-i", tmp_path / "cover.png", "-t", "1"),
        *("-map", "0", "-map", "1", "-c:a", "aac", "-c:v", "copy"),
        *("-disposition:v", "attached_pic", tmp_path / "song.m4a"),
    )
    media = await look(tmp_path / "song.m4a")
    assert media.playable
    assert [(track.kind, track.is_cover) for track in media.tracks] == [
        ("audio", False),
        ("video", True),
    ]


@pytest.mark.parametrize(
    "data", [b"\0" * 100_000, b"hello\n" * 1000, bytes(range(256)) * 400, b"\x89PNG\r\n\x1a\n" * 9]
)
async def test_garbage_is_not_playable(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.mp4").write_bytes(data)
    media = await look(tmp_path / "x.mp4")
    assert media.playable is False
    assert media.reason.isprintable()
    assert "/proc/" not in media.reason


async def test_without_ffprobe_nobody_knows(recording: Path, tmp_path: Path) -> None:
    media = await look(recording, program="/nowhere/ffprobe")
    assert media == MediaInfo(reason="ffprobe not found: /nowhere/ffprobe (set FFPROBE_PATH)")
    broken = await look(cut(recording, tmp_path / "cut.mp4", 0.5), program="/nowhere/ffprobe")
    assert broken.playable is False


async def test_a_slow_ffprobe_is_stopped(recording: Path, tmp_path: Path) -> None:
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nsleep 60\n")
    slow.chmod(0o755)
    media = await look(recording, program=str(slow), timeout_s=0.3)
    assert media.playable is None
    assert "FFPROBE_TIMEOUT_SECONDS" in media.reason


async def test_a_starved_ffprobe_says_nothing_about_the_file(recording: Path) -> None:
    media = await look(recording, memory_bytes=200 * MIB)
    assert media.playable is None
    assert "FFPROBE_MEMORY_BYTES" in media.reason


async def test_a_crashing_ffprobe_says_nothing_about_the_file(
    recording: Path, tmp_path: Path
) -> None:
    crash = tmp_path / "crash"
    crash.write_text("#!/bin/sh\nkill -SEGV $$\n")
    crash.chmod(0o755)
    media = await look(recording, program=str(crash))
    assert (media.playable, media.reason) == (None, "ffprobe was killed by SIGSEGV")


async def test_a_babbling_ffprobe_is_stopped(recording: Path, tmp_path: Path) -> None:
    babble = tmp_path / "babble"
    babble.write_text("#!/bin/sh\nexec yes\n")
    babble.chmod(0o755)
    media = await look(recording, program=str(babble))
    assert media.playable is None


def renamed_entry(path: Path, target: Path, old: bytes, new: bytes) -> Path:
    """With the last sample entry of that kind called otherwise, and no record that tells."""
    data = bytearray(path.read_bytes())
    at = data.rindex(old, 0, data.rindex(b"stts"))
    data[at : at + 4] = new
    if (record := data.find(b"esds", at)) >= 0:
        data[record : record + 4] = b"dapa"
    target.write_bytes(data)
    return target


async def test_an_encrypted_recording(recording: Path, tmp_path: Path) -> None:
    key = ("-encryption_key", "76a6c65c5ea762046bd749a2e632ccbb")
    scheme = ("-encryption_scheme", "cenc-aes-ctr", *key, "-encryption_kid", "0" * 32)
    media = await look(remuxed(recording, tmp_path / "sold.mp4", *scheme))
    assert (media.playable, media.reason) == (False, "it is encrypted")
    assert all(track.is_encrypted for track in media.tracks)


async def test_pictures_in_a_codec_that_nobody_decodes(recording: Path, tmp_path: Path) -> None:
    media = await look(renamed_entry(recording, tmp_path / "new.mp4", b"avc1", b"zvc9"))
    assert media.playable is False
    assert media.reason == "codec zvc9 is not supported by this ffmpeg"
    assert [track.is_supported for track in media.tracks] == [False, True, True]


async def test_a_sound_track_that_nobody_decodes_beside_others(
    recording: Path, tmp_path: Path
) -> None:
    media = await look(renamed_entry(recording, tmp_path / "phone.mov", b"mp4a", b"apac"))
    assert media.playable is True
    assert [track.codec for track in media.tracks] == ["h264", "aac", "apac"]
    assert [track.is_supported for track in media.tracks] == [True, True, False]
