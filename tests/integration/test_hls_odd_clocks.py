"""Clocks and headers that mislead: late starts, jumps, lengths that nobody wrote down; and what
must not be copied although its header lets it look as if it fitted."""

import re
import struct
from collections.abc import Callable
from pathlib import Path

import m3u8  # type: ignore[import-untyped]  # it ships no types
import pytest
from tests.support.hls_media import AAC, NEEDS_FFMPEG, encode, ffmpeg
from tests.support.odd_media import X264, beeping, beeps, flashes, flashing, marked, one, together

from cefmp4.errors import PermanentError
from cefmp4.hls.result import Tier

pytestmark = [pytest.mark.integration, NEEDS_FFMPEG]
OVERLOOKED = ("-ignore_editlist", "1")  # as players do with the empty edit of a late start


@pytest.mark.parametrize("name", ["late.mp4", "late.mkv", "late.ts"])
async def test_sound_that_starts_late_beside_pictures_that_fit(tmp_path: Path, name: str) -> None:
    whole, path = marked(tmp_path, "whole.mp4"), tmp_path / name
    maps = ("-map", "0:v", "-map", "1:a", "-c", "copy")
    ffmpeg("-i", whole, "-itsoffset", "0.3", "-i", whole, *maps, path)
    encoded = await encode(path, may_copy=True, has_thumbnails=False)
    assert encoded.result.tier is Tier.COPY
    assert flashes(encoded) == pytest.approx([0.5, 1.5], abs=0.05)
    assert beeps(encoded, given=OVERLOOKED) == pytest.approx([0.8, 1.8], abs=0.05)


@pytest.mark.parametrize("is_told", [True, False], ids=["told", "untold"])
@pytest.mark.parametrize(("video_s", "audio_s"), [(3, 3), (0, 1), (1, 0)])
async def test_matroska_that_does_not_start_at_zero(
    tmp_path: Path, video_s: int, audio_s: int, is_told: bool
) -> None:
    whole, path = marked(tmp_path, "whole.mp4"), tmp_path / "late.mkv"
    ffmpeg("-itsoffset", str(video_s), "-i", whole, "-itsoffset", str(audio_s), "-i", whole,
           "-map", "0:v", "-map", "1:a", "-c", "copy", path)  # fmt: skip
    if not is_told:
        path.write_bytes(path.read_bytes().replace(b"DURATION", b"IRRATION"))
    encoded = await one(path)
    seen, heard = (
        [start - min(video_s, audio_s) + at for at in (0.5, 1.5)] for start in (video_s, audio_s)
    )
    assert flashes(encoded) == pytest.approx(seen, abs=0.075)
    # What is heard after the last picture is cut.
    assert beeps(encoded) == pytest.approx([at for at in heard if at < seen[-1] + 0.5], abs=0.075)


async def test_a_transport_stream_that_fits_is_copied(tmp_path: Path) -> None:
    encoded = await encode(marked(tmp_path, "clip.ts"), may_copy=True, has_thumbnails=False)
    assert encoded.result.tier is Tier.COPY
    together(encoded, [0.5, 1.5])


@pytest.mark.parametrize("offsets_s", [(100, 5000), (5000, 100), (0, 0)])
async def test_a_transport_stream_whose_clock_jumps(
    tmp_path: Path, offsets_s: tuple[int, int]
) -> None:
    first, second = (
        marked(tmp_path, f"{number}.ts", "-output_ts_offset", str(offset_s)).read_bytes()
        for number, offset_s in enumerate(offsets_s)
    )
    path = tmp_path / "joined.ts"
    path.write_bytes(first + second)
    encoded = await one(path)
    assert encoded.result.duration_s == pytest.approx(4.0, abs=0.15)
    together(encoded, [0.5, 1.5, 2.5, 3.5])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("clip.flv", (*X264, *AAC)),
        ("clip.wmv", ("-c:v", "wmv2", "-c:a", "wmav2")),
        ("clip.mkv", (*X264, *AAC)),
    ],
)
async def test_sound_outlives_the_pictures_and_only_its_length_is_told(
    tmp_path: Path, name: str, options: tuple[str, ...]
) -> None:
    path = tmp_path / name
    ffmpeg(*flashing(2), *beeping(5), *options, path)
    data = path.read_bytes().replace(b"DURATION", b"IRRATION")
    path.write_bytes(data)
    encoded = await one(path)
    assert encoded.result.duration_s == pytest.approx(2.0, abs=0.1)
    together(encoded, [0.5, 1.5])
    assert re.search(r"audio track 1 is cut by (2.9|3.0)", encoded.result.notes[0])


@pytest.mark.parametrize("name", ["clip.flv", "clip.mkv"])
async def test_where_nothing_reaches_the_end_that_is_told_it_is_not_all_there(
    tmp_path: Path, name: str
) -> None:
    data, torn = marked(tmp_path, name, seconds=4).read_bytes(), tmp_path / f"torn-{name}"
    torn.write_bytes(data[: len(data) // 2].replace(b"DURATION", b"IRRATION"))
    with pytest.raises(PermanentError, match=r"lasts \d"):
        await one(torn)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
async def test_a_thumbnail_before_the_recording(tmp_path: Path, name: str) -> None:
    thumbnail, whole = tmp_path / "t.jpg", marked(tmp_path, "whole.mp4")
    ffmpeg(*flashing(1), "-frames:v", "1", thumbnail)
    ffmpeg("-i", thumbnail, "-i", whole, "-map", "0", "-map", "1", "-c", "copy", tmp_path / name)
    encoded = await one(tmp_path / name)
    together(encoded, [0.5, 1.5])


async def test_a_track_without_a_sound(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    ffmpeg(*flashing(1), "-f", "lavfi", "-i", "anullsrc=d=0.0001", *X264, *AAC, path)
    encoded = await one(path)
    assert [track.name for track in encoded.result.tracks] == ["h264-90p"]
    assert "TYPE=AUDIO" not in encoded.master
    assert not [key for key in encoded.store.keys if "audio" in key]


def upside_down(path: Path) -> None:
    data = bytearray(path.read_bytes())
    one, unit = 1 << 16, 1 << 30
    matrix = (one, 0, 0, 0, -one, 0, 0, 90 * one, unit)
    struct.pack_into(">9i", data, data.index(b"tkhd") + 44, *matrix)
    path.write_bytes(data)


def lossy(path: Path) -> None:
    data = path.read_bytes()
    packets = [data[at : at + 188] for at in range(0, len(data), 188)]
    path.write_bytes(b"".join(p for n, p in enumerate(packets) if n < 20 or n % 37))


def two_sizes(path: Path) -> None:
    """As a conference server leaves it: the second half has parameters of its own, in its midst."""
    raw = b""
    for size in ("160x90", "320x180"):
        ffmpeg(*flashing(1, size=size), *X264, path.with_suffix(".h264"))
        raw += path.with_suffix(".h264").read_bytes()
    path.with_suffix(".h264").write_bytes(raw)
    ffmpeg("-r", "25", "-i", path.with_suffix(".h264"), "-c", "copy", path)


@pytest.mark.parametrize(
    ("name", "options", "spoil", "reason"),
    [
        ("hlg.mp4", ("-color_trc", "arib-std-b67"), None, "it is HLG"),
        ("fast.mp4", ("-r", "120"), None, "it has more than 60 frames"),
        ("flip.mp4", (), upside_down, "it is mirrored"),
        ("lossy.ts", (), lossy, "packets of it are damaged"),
        ("two.mkv", (), two_sizes, "its size or its parameters change"),
    ],
)
async def test_what_is_not_copied_either(
    tmp_path: Path,
    name: str,
    options: tuple[str, ...],
    spoil: Callable[[Path], None] | None,
    reason: str,
) -> None:
    path = marked(tmp_path, name, *options)
    if spoil:
        spoil(path)
    encoded = await one(path, may_copy=True)
    assert encoded.result.tier is Tier.CPU
    assert encoded.result.not_copied[0].startswith(reason)


async def test_hdr_without_primaries(tmp_path: Path) -> None:
    path, codec = tmp_path / "hdr.mkv", ("-c:v", "libx265", "-preset", "ultrafast")
    told = ("-x265-params", "log-level=error:transfer=smpte2084")
    ffmpeg(*flashing(1), "-pix_fmt", "yuv420p10le", *codec, *told, path)
    encoded = await encode(path)
    ranges = [p.stream_info.video_range for p in m3u8.loads(encoded.master).playlists]
    assert ranges == ["PQ", "SDR"]
