"""Damage in what is copied, although a copy decodes nothing: it is counted, or it is not copied."""

import json
import random
import subprocess
from pathlib import Path

import pytest
from tests.support.hls_media import H264, NEEDS_FFMPEG, Encoded, encode, ffmpeg

from cefmp4.hls.result import Tier
from cefmp4.model.rendition import CodecChoice

pytestmark = [pytest.mark.integration, NEEDS_FFMPEG]


TAGGED = ("-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709")


def noisy(folder: Path, *tags: str) -> Path:
    """Large pictures, a key frame every second."""
    path = folder / "clip.mp4"
    picture = ("-f", "lavfi", "-i", "testsrc2=s=320x180:r=25:d=6,noise=alls=40:allf=t")
    ffmpeg(*picture, *H264, "-pix_fmt", "yuv420p", "-g", "25", *tags, path)
    return path


def packets(path: Path) -> list[tuple[int, int, bool]]:
    """Place, size, and whether it is a key frame."""
    show = ("-show_entries", "packet=pos,size,flags", "-of", "json", "-select_streams", "v")
    argv = ["ffprobe", "-v", "error", *show, str(path)]
    done = subprocess.run(argv, capture_output=True, timeout=60, check=True)
    found = json.loads(done.stdout)["packets"]
    return [(int(p["pos"]), int(p["size"]), "K" in p["flags"]) for p in found]


async def copied(path: Path) -> Encoded:
    return await encode(path, may_copy=True, codecs=CodecChoice.H264, is_examined=False)


@pytest.mark.parametrize("tags", [TAGGED, ()], ids=["told", "colours are written in"])
async def test_zeros_in_pictures_are_counted(tmp_path: Path, tags: tuple[str, ...]) -> None:
    path = noisy(tmp_path, *tags)
    data = bytearray(path.read_bytes())
    for at, size, is_key in packets(path)[30:33]:
        assert not is_key
        data[at + size // 2 : at + size // 2 + 300] = bytes(300)
    path.write_bytes(data)
    encoded = await copied(path)
    assert encoded.result.tier is Tier.COPY
    assert encoded.result.warnings == 3
    document = json.loads(encoded.text("attempt.1/result.json"))
    assert document["warnings"] == 3
    assert document["warning_texts"] == ["3 errors in what was decoded or copied"]


async def test_noise_in_key_frames_is_counted(tmp_path: Path) -> None:
    path, dice = noisy(tmp_path), random.Random(1)
    data = bytearray(path.read_bytes())
    for at, size, is_key in packets(path)[1:]:
        if is_key:
            data[at + size // 2 : at + size // 2 + 400] = dice.randbytes(400)
    path.write_bytes(data)
    encoded = await copied(path)
    assert encoded.result.warnings > 0


async def test_what_players_would_stop_at_is_not_copied(tmp_path: Path) -> None:
    """A length that leads nowhere."""
    path = noisy(tmp_path, *TAGGED)
    data = bytearray(path.read_bytes())
    at, _, _ = packets(path)[40]
    data[at : at + 4] = b"\x00\xff\xff\xff"
    path.write_bytes(data)
    encoded = await copied(path)
    assert encoded.result.tier is Tier.CPU
    assert encoded.result.not_copied == ("pictures of it are damaged",)
    assert encoded.result.warnings > 0


async def test_a_copy_of_what_is_whole_counts_nothing(tmp_path: Path) -> None:
    encoded = await copied(noisy(tmp_path))
    assert encoded.result.tier is Tier.COPY
    assert encoded.result.warnings == 0
