"""Sound and pictures that do not end together in the source do so in what players get."""

import json
import re
from pathlib import Path

import pytest
from tests.support.hls_media import AAC, H264, NEEDS_FFMPEG, PICTURE, SOUND, Encoded, encode, ffmpeg
from tests.support.odd_media import X264, beeping, beeps, flashes, flashing

from cefmp4.hls.result import Tier
from cefmp4.model.rendition import CodecChoice

pytestmark = [pytest.mark.integration, NEEDS_FFMPEG]


async def one(path: Path, *, may_copy: bool) -> Encoded:
    encoded = await encode(path, may_copy=may_copy, codecs=CodecChoice.H264, has_thumbnails=False)
    assert encoded.result.tier is (Tier.COPY if may_copy else Tier.CPU)
    return encoded


def ends(encoded: Encoded) -> list[float]:
    return [track.end_s for track in encoded.result.tracks]


def told(encoded: Encoded) -> list[str]:
    document = json.loads(encoded.text("attempt.1/result.json"))
    texts: list[str] = document["warning_texts"]
    assert document["warnings"] == len(texts) + max(0, encoded.result.errors - 1)
    return texts


@pytest.mark.parametrize("may_copy", [True, False], ids=["copy", "encode"])
@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.ts"])
@pytest.mark.parametrize(("sound_s", "words"), [
    (6, r"is cut by (2.9|3.0)\d s"), (1.5, r"ends in 1.[45]\d s of silence"),
])  # fmt: skip
async def test_sound_that_is_longer_or_shorter(
    tmp_path: Path, name: str, sound_s: float, words: str, may_copy: bool
) -> None:
    path = tmp_path / name
    ffmpeg(*flashing(3), *beeping(sound_s), *X264, *AAC, path)
    encoded = await one(path, may_copy=may_copy)
    assert ends(encoded) == pytest.approx([3.0, 3.0], abs=0.1)
    assert beeps(encoded) == pytest.approx([0.5, 1.5, 2.5][: int(sound_s)], abs=0.07)
    (text,) = told(encoded)
    assert re.search(words, text)


@pytest.mark.parametrize("may_copy", [True, False], ids=["copy", "encode"])
async def test_sound_that_begins_late(tmp_path: Path, may_copy: bool) -> None:
    path = tmp_path / "late.mp4"
    ffmpeg(*flashing(4), "-itsoffset", "2", *beeping(2), *X264, *AAC, path)
    encoded = await one(path, may_copy=may_copy)
    assert ends(encoded) == pytest.approx([4.0, 4.0], abs=0.1)
    assert flashes(encoded) == pytest.approx([0.5, 1.5, 2.5, 3.5], abs=0.07)
    assert beeps(encoded) == pytest.approx([2.5, 3.5], abs=0.07)
    assert told(encoded) == []


@pytest.mark.parametrize("may_copy", [True, False], ids=["copy", "encode"])
async def test_tracks_of_different_lengths(tmp_path: Path, may_copy: bool) -> None:
    path = tmp_path / "many.mp4"
    sounds = (*beeping(2), *beeping(5), *beeping(4))
    maps = ("-map", "0", "-map", "1", "-map", "2", "-map", "3")
    ffmpeg(*flashing(4), *sounds, *maps, *X264, *AAC, path)
    encoded = await one(path, may_copy=may_copy)
    assert ends(encoded) == pytest.approx([4.0] * 4, abs=0.1)
    texts = told(encoded)
    assert len(texts) == 2
    assert re.match(r"audio track 1 ends in (1.9|2.0)\d s of silence", texts[0])
    assert re.match(r"audio track 2 is cut by 1.0\d s", texts[1])
    # As it is stored, and nothing of what it was before.
    names = {row.key for track in encoded.result.tracks for row in track.rows}
    assert names == {key for key in encoded.store.keys if key.endswith(".m4s")}


@pytest.mark.parametrize("name", ["screen.mp4", "screen.flv"])
async def test_far_more_is_heard_than_seen(tmp_path: Path, name: str) -> None:
    """As of a screen on which nothing moved any more: what is said is not lost."""
    path = tmp_path / name
    ffmpeg(*flashing(2), *beeping(16), *X264, *AAC, path)
    encoded = await encode(path, may_copy=True, codecs=CodecChoice.H264)
    assert encoded.result.tier is Tier.CPU
    assert re.search(r"its sound outlasts its pictures", encoded.result.not_copied[0])
    assert ends(encoded) == pytest.approx([16.0, 16.0], abs=0.15)
    assert len(beeps(encoded)) == 16
    assert re.match(r"the last picture stays for 1[34].\d\d s", told(encoded)[0])
    thumbnails = encoded.store.data(encoded.result.thumbnails_key).decode()
    assert thumbnails.count("#xywh") >= 8


async def test_what_ends_together_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    ffmpeg(*PICTURE, *SOUND, "-t", "3", *H264, "-g", "60", "-pix_fmt", "yuv420p", *AAC, path)
    encoded = await one(path, may_copy=True)
    assert told(encoded) == []
    assert encoded.result.warnings == 0
