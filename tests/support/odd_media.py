"""Recordings with a flash and a beep in every second, and where these come out."""

import array
import re
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
from tests.hls_parts import parsed
from tests.support.hls_media import AAC, H264, Encoded, encode, ffmpeg

from cefmp4.hls.result import StoredTrack
from cefmp4.model.rendition import CodecChoice

X264 = (*H264, "-pix_fmt", "yuv420p", "-g", "50")
NOW = "between(mod(t,1),0.5,0.6)"
QUIET_AFTER = 1500  # of 32767
LIP_SYNC_S = 0.07


def flashing(seconds: float = 2, *, size: str = "160x90", rate: str = "25") -> tuple[str, ...]:
    flash = f"drawbox=c=white:t=fill:enable='{NOW}'"
    return ("-f", "lavfi", "-i", f"testsrc2=s={size}:r={rate}:d={seconds},{flash}")


def beeping(seconds: float = 2, *, rate: int = 48000, channels: int = 1) -> tuple[str, ...]:
    sounds = "|".join([f"0.5*sin(2*PI*1000*t)*{NOW}"] * channels)
    return ("-f", "lavfi", "-i", f"aevalsrc='{sounds}':s={rate}:d={seconds}")


def marked(folder: Path, name: str, *options: str, seconds: float = 2) -> Path:
    """H.264 and AAC unless told otherwise."""
    ffmpeg(*flashing(seconds), *beeping(seconds), *X264, *AAC, *options, folder / name)
    return folder / name


async def one(path: Path, *, may_copy: bool = False) -> Encoded:
    """A single rendition, to be quick."""
    return await encode(path, may_copy=may_copy, codecs=CodecChoice.H264, has_thumbnails=False)


def media(encoded: Encoded, track: StoredTrack) -> bytes:
    init = encoded.store.data(f"hls/s1/{track.folder}/init.mp4")
    return init + b"".join(encoded.store.data(row.key) for row in track.rows)


def decoded(
    data: bytes, *options: str, given: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[bytes]:
    argv = ["ffmpeg", "-v", "info", "-copyts", *given, "-i", "pipe:0", *options]
    return subprocess.run(argv, input=data, capture_output=True, timeout=60, check=True)


def onsets(moments: list[tuple[float, bool]]) -> list[float]:
    return [at for (_, was_on), (at, is_on) in pairwise(moments) if is_on and not was_on]


def flashes(encoded: Encoded) -> list[float]:
    """As a player places them: by the fragments' own times, whatever an edit list says."""
    data = media(encoded, encoded.result.tracks[0])
    first = parsed(data)[0]
    zero = (first.start + first.samples[0].cto) / first.init.header.timescale
    look = ("-fps_mode", "passthrough", "-vf", "scale=8:8,format=gray,showinfo", "-f", "null", "-")
    told = decoded(data, *look).stderr.decode()
    found = re.findall(r"pts_time:(\S+) .*?mean:\[(\d+)", told)
    began = float(found[0][0])
    return onsets([(zero + float(at) - began, int(mean) > 215) for at, mean in found])


def beeps(encoded: Encoded, *, given: tuple[str, ...] = ()) -> list[float]:
    sound = next(track for track in encoded.result.tracks if not track.is_video)
    placed = ("-af", "aresample=8000:async=1:first_pts=0", "-ac", "1", "-f", "s16le", "-")
    raw = decoded(media(encoded, sound), *placed, given=given).stdout
    samples = array.array("h", raw[: len(raw) // 2 * 2])
    steps = [samples[at : at + 80] for at in range(0, len(samples), 80)]
    return onsets([(n / 100, max(map(abs, s)) > QUIET_AFTER) for n, s in enumerate(steps)])


def together(encoded: Encoded, expected: list[float]) -> None:
    assert flashes(encoded) == pytest.approx(expected, abs=0.12)  # a frame now and then
    assert len(beeps(encoded)) == len(expected)
    for flash, beep in zip(flashes(encoded), beeps(encoded), strict=True):
        assert flash == pytest.approx(beep, abs=LIP_SYNC_S)
