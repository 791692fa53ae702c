"""A small file whose clock claims hours holds no slot for hours, and none of our disk; recordings
that really are long, or mostly still, are made as ever."""

import asyncio
import struct
import time
from fractions import Fraction
from pathlib import Path

import pytest
from tests.support.fake_store import FakeObjectStore
from tests.support.hls_media import H264, NEEDS_FFMPEG, PICTURE, encoder, ffmpeg, opened, sink_of

from cefmp4.errors import PermanentError
from cefmp4.hls import worth
from cefmp4.hls.encode import HlsOptions
from cefmp4.hls.encoders import EncoderChooser
from cefmp4.hls.make import HlsEncoder
from cefmp4.hls.result import HlsResult
from cefmp4.media.source import UnusableSourceError

pytestmark = [pytest.mark.integration, NEEDS_FFMPEG]

HOURS = 3600
TINY = ("-f", "lavfi", "-i", "testsrc2=s=64x48:r=30")
RATE = Fraction(30)


def with_a_gap(folder: Path, gap_s: int, name: str = "gap.mkv") -> Path:
    """Four pictures, and a gap in the midst of them."""
    path = folder / name
    clock = f"setpts='if(lt(N,2),N/30,{gap_s}+N/30)/TB'"
    ffmpeg(*TINY, "-frames:v", "4", "-vf", clock, *H264, "-fps_mode", "passthrough", path)
    assert path.stat().st_size < 4096
    return path


async def made(path: Path, using: HlsEncoder | None = None) -> HlsResult:
    async with opened(path) as source:
        return await (using or encoder()).encode(source, sink_of(FakeObjectStore()))


@pytest.fixture
def few_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same in a tenth of the time."""
    monkeypatch.setattr(worth, "_FREE_PICTURES", 2000)


@pytest.mark.usefixtures("few_free")
async def test_a_gap_of_hours_is_not_filled_with_a_million_pictures(tmp_path: Path) -> None:
    done = await made(with_a_gap(tmp_path, HOURS))
    assert done.duration_s == pytest.approx(HOURS, abs=2)
    assert done.tracks[0].frames == pytest.approx(HOURS, abs=2)
    assert "1 pictures per second: its bytes cannot hold more" in done.warning_texts


async def test_weeks_in_four_kilobytes_are_refused_at_once(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(UnusableSourceError, match="claims to be 1,000 hours long"):
        await made(with_a_gap(tmp_path, 1000 * HOURS))
    assert time.monotonic() - began < 30


async def test_weeks_of_silence_are_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "gap.mka"
    clock = f"asetpts='if(lt(N,20),N*1024,{1000 * HOURS}*SR+N*1024)'"
    ffmpeg("-f", "lavfi", "-i", "sine", "-frames:a", "40", "-af", clock, "-c:a", "aac", path)
    with pytest.raises(UnusableSourceError, match="hours long"):
        await made(path)


@pytest.mark.usefixtures("few_free")
async def test_a_header_that_lies_gains_nothing(tmp_path: Path) -> None:
    """It says one minute, and its pictures go on for two hours."""
    path = with_a_gap(tmp_path, 2 * HOURS)
    data = path.read_bytes()
    told = data.index(b"\x44\x89\x88") + 3
    data = data[:told] + struct.pack(">d", 60_000.0) + data[told + 8 :]
    path.write_bytes(data.replace(b"02:00:00.", b"00:01:00."))
    with pytest.raises(PermanentError, match="it goes on after"):
        await made(path)


@pytest.mark.parametrize(("size", "count"), [(0, 0x7FFFFFFF), (1, 0x7FFFFFFF)])
async def test_two_billion_samples_end_at_once(size: int, count: int, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    ffmpeg(*TINY, "-frames:v", "4", *H264, path)
    data = bytearray(path.read_bytes())
    for box, at, values in (
        (b"stsz", 8, (size, count)),
        (b"stts", 12, (count,)),
        (b"stsc", 16, (count,)),
    ):
        start = data.index(box) + at
        data[start : start + 4 * len(values)] = struct.pack(f">{len(values)}I", *values)
    path.write_bytes(data)
    async with asyncio.timeout(40):
        with pytest.raises(PermanentError):
            await made(path)


async def test_all_of_a_job_has_a_limit_that_the_reason_names(tmp_path: Path) -> None:
    """Whatever it is that takes so long: here, an ffmpeg that never ends."""
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    program.chmod(0o755)
    path = tmp_path / "a.mp4"
    ffmpeg(*PICTURE, "-t", "1", *H264, path)
    chooser = EncoderChooser(program="ffmpeg", use_gpu=False)
    using = HlsEncoder(
        chooser=chooser,
        options=HlsOptions(program=str(program), timeout_s=3, may_copy=False),
    )
    with pytest.raises(PermanentError, match="raise HLS_TIMEOUT_HOURS"):
        await made(path, using)


async def test_a_screen_that_is_still_for_long_is_all_there(tmp_path: Path) -> None:
    """As phones record it: no picture where nothing changes, and the usual rate where it does."""
    path = tmp_path / "still.mkv"
    clock = "setpts='if(lt(N,60),N/30,400+N/30)/TB'"
    ffmpeg(*TINY, "-frames:v", "120", "-vf", clock, *H264, "-fps_mode", "passthrough", path)
    done = await made(path)
    assert done.tracks[0].frames == pytest.approx(404 * 30, abs=60)


# Of real recordings: (bytes, seconds, frames per second).
REAL = {
    "a day of one picture a second": (86_400 * 120, 86_400, 1),
    "a day at 30, hardly anything moving": (86_400 * 30 * 20, 86_400, 30),
    "a day of a camera": (86_400 * 250_000, 86_400, 25),
    "a short clip of a grey wall": (2_000, 5, 60),
    "ten minutes of a still screen": (9_000, 600, 30),
    "a week of a picture a minute": (10_080 * 900, 604_800, Fraction(1, 60)),
}


@pytest.mark.parametrize(("size", "length_s", "rate"), REAL.values(), ids=REAL)
def test_real_recordings_keep_their_pictures(size: int, length_s: int, rate: Fraction) -> None:
    worth.check_length(size, length_s)
    assert worth.bearable_frame_rate(Fraction(rate), size, length_s) == rate


def test_few_bytes_get_little_time_and_many_get_all() -> None:
    day = 24.0 * HOURS
    assert worth.longest_s(4096, 7 * day) == 600
    assert worth.longest_s(0, 7 * day) == 600
    assert worth.longest_s(4096, 60) == 60
    assert worth.longest_s(1 << 30, 7 * day) == 7 * day
    assert worth.longest_s(16 << 20, 7 * day) == 3.5 * day
    assert worth.bearable_frame_rate(RATE, 4096, 10 * HOURS) == 1
    assert worth.bearable_frame_rate(RATE, 4096, 2000.0) == 10
