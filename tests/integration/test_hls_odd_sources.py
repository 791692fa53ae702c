"""What people really record: foreign containers, codecs and clocks. A flash and a beep in every
second tell whether picture and sound still belong together in what came out."""

import re
import struct
from pathlib import Path

import m3u8  # type: ignore[import-untyped]  # it ships no types
import pytest
from tests.support.hls_media import AAC, NEEDS_FFMPEG, encode, ffmpeg, videos
from tests.support.odd_media import X264, beeping, beeps, flashes, flashing, marked, one, together

from cefmp4.errors import PermanentError
from cefmp4.hls.result import Tier

pytestmark = [pytest.mark.integration, NEEDS_FFMPEG]
VP9 = ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vp9.webm", (*VP9, "-pix_fmt", "yuva420p", "-c:a", "libopus")),
        ("av1.mkv", ("-c:v", "libsvtav1", "-preset", "12", "-c:a", "libvorbis")),
        ("prores.mov", ("-c:v", "prores_ks", "-pix_fmt", "yuva444p10le", "-c:a", "pcm_s24le")),
        ("motion.avi", ("-c:v", "mjpeg", "-c:a", "pcm_s16le")),
        ("packed.avi", ("-c:v", "mpeg4", "-vtag", "XVID", "-bf", "2", "-c:a", "libmp3lame")),
        ("broadcast.ts", ("-c:v", "mpeg2video", "-c:a", "mp2")),
        ("studio.mxf", ("-c:v", "mpeg2video", "-pix_fmt", "yuv422p", "-c:a", "pcm_s16le")),
        ("windows.wmv", ("-c:v", "wmv2", "-c:a", "wmav2")),
        ("lossless.mkv", ("-c:v", "ffv1", "-pix_fmt", "yuv444p12le", "-c:a", "pcm_f32le")),
        ("screen.mov", ("-c:v", "png", "-pix_fmt", "rgb24")),
        ("rgb.mp4", ("-c:v", "libx264rgb", "-preset", "ultrafast", "-pix_fmt", "bgr24")),
    ],
)
async def test_foreign_formats(tmp_path: Path, name: str, options: tuple[str, ...]) -> None:
    encoded = await one(marked(tmp_path, name, *options))
    assert encoded.result.duration_s == pytest.approx(2.0, abs=0.1)
    together(encoded, [0.5, 1.5])


@pytest.mark.parametrize(
    ("name", "sound", "options"),
    [
        ("24.mov", beeping(), ("-c:a", "pcm_s24le")),
        ("51.mkv", beeping(channels=6), ("-c:a", "ac3")),
        ("lossless.mkv", beeping(rate=192000, channels=2), ("-c:a", "flac")),
        ("opus.mp4", beeping(), ("-c:a", "libopus")),
        ("phone.mp4", beeping(rate=8000), AAC),
        ("71.mp4", beeping(channels=8), AAC),
    ],
)
async def test_foreign_sound_beside_pictures_that_fit(
    tmp_path: Path, name: str, sound: tuple[str, ...], options: tuple[str, ...]
) -> None:
    ffmpeg(*flashing(), *sound, *X264, *options, tmp_path / name)
    encoded = await encode(tmp_path / name, may_copy=True, has_thumbnails=False)
    assert encoded.result.tier is Tier.COPY
    together(encoded, [0.5, 1.5])


@pytest.mark.parametrize("may_copy", [True, False])
@pytest.mark.parametrize("offset_s", ["36000", f"{2**33 / 90000 - 2.4:.3f}"])
async def test_a_clock_that_shows_hours_or_begins_anew(
    tmp_path: Path, offset_s: str, may_copy: bool
) -> None:
    path = marked(tmp_path, "clip.ts", "-output_ts_offset", offset_s)
    encoded = await one(path, may_copy=may_copy)
    assert encoded.result.duration_s == pytest.approx(2.0, abs=0.1)
    together(encoded, [0.5, 1.5])


async def test_pictures_that_start_late(tmp_path: Path) -> None:
    whole, path = marked(tmp_path, "whole.mp4"), tmp_path / "late.mp4"
    ffmpeg("-itsoffset", "1", "-i", whole, "-i", whole, "-map", "0:v", "-map", "1:a",
           "-c", "copy", path)  # fmt: skip
    encoded = await one(path, may_copy=True)
    assert encoded.result.not_copied == ("its video starts 1.00 s late",)
    assert flashes(encoded) == pytest.approx([1.5, 2.5], abs=0.05)
    assert beeps(encoded) == pytest.approx([0.5, 1.5], abs=0.05)


@pytest.mark.parametrize("name", ["gap.mkv", "gap.ts"])
async def test_sound_with_a_hole(tmp_path: Path, name: str) -> None:
    path = marked(tmp_path, name, "-af", "aselect='not(between(t,1,2))'", seconds=3)
    encoded = await one(path)
    assert flashes(encoded) == pytest.approx([0.5, 1.5, 2.5], abs=0.075)
    assert beeps(encoded) == pytest.approx([0.5, 2.5], abs=0.075)


@pytest.mark.parametrize(("rate", "told"), [
    ("120", 60.0), ("60000/1001", 59.94), ("24000/1001", 23.976), ("25/2", 12.5), ("1/10", 0.1),
])  # fmt: skip
async def test_frame_rates(tmp_path: Path, rate: str, told: float) -> None:
    seconds, path = 20 if rate == "1/10" else 1, tmp_path / "clip.mp4"
    ffmpeg(*flashing(seconds, rate=rate), *X264, path)
    encoded = await one(path)
    assert videos(encoded.result)[0][3] == told
    assert encoded.result.duration_s == pytest.approx(seconds, abs=0.1)


@pytest.mark.parametrize(("size", "shape", "told"), [
    ("2x2", "1", (16, 16)), ("4096x2", "1", (4096, 16)), ("2x1080", "1", (16, 1080)),
    ("160x90", "1/100", (160, 90)), ("160x90", "16/11", (232, 90)),
])  # fmt: skip
async def test_sizes(tmp_path: Path, size: str, shape: str, told: tuple[int, int]) -> None:
    path = tmp_path / "clip.mkv"
    source = ("-f", "lavfi", "-i", f"testsrc2=s={size}:r=10:d=1,setsar={shape}")
    ffmpeg(*source, "-c:v", "ffv1", "-pix_fmt", "yuv444p", path)
    encoded = await one(path)
    assert videos(encoded.result)[0][1:3] == told


async def test_a_picture_that_changes_its_size(tmp_path: Path) -> None:
    small = marked(tmp_path, "small.ts")
    large = marked(tmp_path, "large.ts", "-s", "320x180", "-output_ts_offset", "2")
    path = tmp_path / "both.ts"
    path.write_bytes(small.read_bytes() + large.read_bytes())
    encoded = await encode(path, may_copy=True, has_thumbnails=False)
    assert encoded.result.tier is Tier.CPU
    assert {track[1:3] for track in videos(encoded.result)} == {(160, 90)}
    together(encoded, [0.5, 1.5, 2.5, 3.5])


async def test_a_dozen_tracks_with_odd_languages(tmp_path: Path) -> None:
    tags = ['en"\nURI="x', "pt-BR", "日本", "x" * 40, "deu"]
    words = [w for n, tag in enumerate(tags) for w in (f"-metadata:s:a:{n}", f"language={tag}")]
    path, maps = tmp_path / "many.mkv", ("-map", "0", *("-map", "1") * 12)
    ffmpeg(*flashing(1), *beeping(1), *maps, *X264, *AAC, *words, path)
    encoded = await encode(path, may_copy=True, has_thumbnails=False)
    told = m3u8.loads(encoded.master).media
    assert [m.language for m in told] == [None, "pt-BR", None, None, "deu", None, None, None]
    assert len({m.name for m in told}) == 8
    assert all(m.uri.startswith("audio-") for m in told)


async def test_what_else_a_file_carries(tmp_path: Path) -> None:
    words = tmp_path / "words.srt"
    words.write_text("1\n00:00:00,500 --> 00:00:09,000\nOn <b>and</b> on\n")
    path = tmp_path / "clip.mkv"
    attached = ("-attach", str(words), "-metadata:s:t", "mimetype=text/plain")
    ffmpeg(*flashing(), *beeping(), "-i", words, *X264, *AAC, "-c:s", "ass", *attached, path)
    timed = marked(tmp_path, "timed.mov", "-timecode", "01:02:03:04", "-metadata", 'title=a\n"b"')
    for source in (path, timed):
        encoded = await encode(source, may_copy=True, has_thumbnails=False)
        assert encoded.result.tier is Tier.COPY
        assert len(encoded.result.tracks) == 2
        together(encoded, [0.5, 1.5])


async def test_fragments_of_a_recorder(tmp_path: Path) -> None:
    """Whole, and without its last third, which the index tells to be missing."""
    flags = ("-movflags", "frag_keyframe+empty_moov+default_base_moof", "-g", "10")
    whole, torn = marked(tmp_path, "whole.mp4", *flags), tmp_path / "torn.mp4"
    encoded = await encode(whole, may_copy=True, has_thumbnails=False)
    assert encoded.result.tier is Tier.COPY
    together(encoded, [0.5, 1.5])
    data = whole.read_bytes()
    torn.write_bytes(data[: data.index(b"mfra") * 2 // 3])
    with pytest.raises(PermanentError, match=r"lasts \d"):
        await one(torn)


async def test_a_matroska_recorder_that_was_killed(tmp_path: Path) -> None:
    """There is no length in its header: what is there is all there is."""
    live = ("-f", "matroska", "-live", "1")
    data, path = marked(tmp_path, "live.mkv", *live).read_bytes(), tmp_path / "killed.mkv"
    path.write_bytes(data[: len(data) * 3 // 4])
    encoded = await one(path)
    assert 1.0 < encoded.result.duration_s < 1.9
    together(encoded, [0.5, 1.5][: len(beeps(encoded))])


@pytest.mark.parametrize("box", [b"mvhd", b"mdhd"])
async def test_a_header_that_lies_about_the_length(tmp_path: Path, box: bytes) -> None:
    path = marked(tmp_path, "clip.mp4")
    data = bytearray(path.read_bytes())
    for found in re.finditer(box, data):
        struct.pack_into(">I", data, found.end() + 16, 0x7FFFFFFF)
    path.write_bytes(data + bytes(range(256)) * 40)  # and something behind its end
    encoded = await encode(path, may_copy=True, has_thumbnails=False)
    assert encoded.result.duration_s == pytest.approx(2.0, abs=0.05)
    together(encoded, [0.5, 1.5])


async def test_hlg_keeps_its_range_and_an_sdr_rung_stands_beside_it(tmp_path: Path) -> None:
    names = "colorprim=bt2020:transfer=arib-std-b67:colormatrix=bt2020nc"
    path, codec = tmp_path / "hlg.mp4", ("-c:v", "libx265", "-preset", "ultrafast")
    ffmpeg(*flashing(1), "-pix_fmt", "yuv420p10le", *codec, "-x265-params",
           f"log-level=error:{names}", path)  # fmt: skip
    encoded = await encode(path)
    ranges = [p.stream_info.video_range for p in m3u8.loads(encoded.master).playlists]
    assert ranges == ["HLG", "SDR"]
