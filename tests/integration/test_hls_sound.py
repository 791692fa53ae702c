"""Recordings without pictures, and sound that cannot be decoded beside some that can."""

import json
import re
from pathlib import Path

import m3u8  # type: ignore[import-untyped]  # it ships no types
import pytest
from tests.support.hls_media import AAC, NEEDS_FFMPEG, PICTURE, SOUND, Encoded, encode, ffmpeg
from tests.support.odd_media import X264, beeping, beeps, flashing

from cefmp4.errors import PermanentError
from cefmp4.hls.result import Tier

pytestmark = [pytest.mark.integration, NEEDS_FFMPEG]


def names(encoded: Encoded) -> list[str]:
    return [track.name for track in encoded.result.tracks]


@pytest.mark.parametrize(
    ("name", "options", "encoder"),
    [
        ("memo.m4a", AAC, "copied"),
        ("memo.mp3", ("-c:a", "libmp3lame"), "made"),
        ("call.webm", ("-c:a", "libopus"), "made"),
        ("tape.wav", ("-c:a", "pcm_s16le"), "made"),
        ("radio.aac", AAC, "made"),  # each packet has a header of its own
        ("radio.ts", AAC, "made"),
        ("lossless.flac", ("-c:a", "flac"), "made"),
    ],
)
async def test_sound_alone(
    tmp_path: Path, name: str, options: tuple[str, ...], encoder: str
) -> None:
    path = tmp_path / name
    ffmpeg(*beeping(8), *options, path)
    encoded = await encode(path)
    assert encoded.result.tier is Tier.COPY  # no slot of an encoder is needed for it
    assert names(encoded) == ["audio-0"]
    assert encoded.result.duration_s == pytest.approx(8.0, abs=0.15)
    assert beeps(encoded) == pytest.approx([at + 0.5 for at in range(8)], abs=0.07)
    (variant,) = m3u8.loads(encoded.master).playlists
    assert variant.stream_info.codecs == "mp4a.40.2"
    assert variant.stream_info.resolution is None
    assert variant.uri == "audio-0.1/index.m3u8"
    assert m3u8.loads(encoded.text(variant.uri)).is_endlist
    poster = encoded.store.data(encoded.result.poster_key)
    assert poster.startswith(b"\xff\xd8")
    assert encoded.result.thumbnails_key == ""
    assert json.loads(encoded.text("attempt.1/result.json"))["warnings"] == 0


async def test_sound_with_a_cover(tmp_path: Path) -> None:
    sound, cover, song = tmp_path / "a.m4a", tmp_path / "c.png", tmp_path / "s.mp3"
    ffmpeg(*SOUND, "-t", "2", *AAC, sound)
    ffmpeg(*PICTURE, "-frames:v", "1", cover)
    both = ("-i", sound, "-i", cover, "-map", "0", "-map", "1")
    ffmpeg(*both, "-c:a", "libmp3lame", "-c:v", "copy", "-disposition:v", "attached_pic", song)
    assert names(await encode(song)) == ["audio-0"]


async def test_several_sounds_without_pictures(tmp_path: Path) -> None:
    path, maps = tmp_path / "stems.mka", ("-map", "0", "-map", "1", "-map", "2")
    tags = ("-metadata:s:a:0", "language=deu", "-metadata:s:a:1", "language=fra")
    ffmpeg(*beeping(4), *beeping(2), *beeping(4), *maps, *AAC, *tags, path)
    encoded = await encode(path)
    master = m3u8.loads(encoded.master)
    assert [m.language for m in master.media] == ["deu", "fra", None]
    assert [p.uri for p in master.playlists] == [master.media[0].uri]
    assert [t.end_s for t in encoded.result.tracks] == pytest.approx([4.0] * 3, abs=0.1)
    (text,) = encoded.result.notes
    assert re.match(r"audio track 1 ends in (1.9|2.0)\d s of silence", text)


async def test_a_cut_off_sound_is_not_called_complete(tmp_path: Path) -> None:
    whole, torn = tmp_path / "whole.m4a", tmp_path / "torn.m4a"
    ffmpeg(*beeping(8), *AAC, "-movflags", "+faststart", whole)
    torn.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(PermanentError, match="not complete"):
        await encode(torn)


def undecodable(path: Path, *, track: int = -1) -> None:
    """As recent phones write it beside AAC: a sample entry that this ffmpeg has no name for."""
    data = bytearray(path.read_bytes())
    at = [found.start() for found in re.finditer(rb"mp4a(?=\0{6})", data)][track]
    data[at : at + 4] = b"apac"
    record = data.index(b"esds", at)
    data[record : record + 4] = b"dapa"
    path.write_bytes(data)


@pytest.mark.parametrize("may_copy", [True, False], ids=["copy", "encode"])
async def test_a_track_that_nobody_decodes_is_left_out(tmp_path: Path, may_copy: bool) -> None:
    path = tmp_path / "phone.mp4"
    maps = ("-map", "0", "-map", "1", "-map", "2")
    ffmpeg(*flashing(2), *beeping(2), *beeping(2), *maps, *X264, *AAC, path)
    undecodable(path)
    encoded = await encode(path, may_copy=may_copy, has_thumbnails=False)
    assert (encoded.result.tier is Tier.COPY) == may_copy
    assert [name for name in names(encoded) if "audio" in name] == ["audio-0"]
    assert beeps(encoded) == pytest.approx([0.5, 1.5], abs=0.07)
    document = json.loads(encoded.text("attempt.1/result.json"))
    assert document["warnings"] == 1
    assert document["warning_texts"] == [
        "audio track 2 (apac) is left out: this ffmpeg does not support its codec"
    ]


async def test_without_a_track_that_anybody_decodes_it_is_silent(tmp_path: Path) -> None:
    path = tmp_path / "phone.mp4"
    ffmpeg(*flashing(2), *beeping(2), *X264, *AAC, path)
    undecodable(path)
    encoded = await encode(path, may_copy=True, has_thumbnails=False)
    assert "TYPE=AUDIO" not in encoded.master
    assert "audio track 1 (apac) is left out" in encoded.result.notes[0]


async def test_a_track_whose_every_packet_is_noise_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "noise.mkv"
    maps = ("-map", "0", "-map", "1", "-map", "2")
    ffmpeg(*flashing(2), *beeping(2), *beeping(2), *maps, *X264, "-c:a:0", "aac",
           "-c:a:1", "flac", path)  # fmt: skip
    data = path.read_bytes()
    path.write_bytes(re.sub(rb"\xff\xf8", b"\x00\x00", data))  # the mark of each FLAC frame
    encoded = await encode(path, may_copy=True, has_thumbnails=False)
    assert "audio track 2 (flac) is left out: nothing of it can be decoded" in encoded.result.notes


async def test_what_is_encrypted_says_so(tmp_path: Path) -> None:
    clear, path = tmp_path / "clear.mp4", tmp_path / "sold.mp4"
    ffmpeg(*flashing(1), *beeping(1), *X264, *AAC, clear)
    key = ("-encryption_key", "76a6c65c5ea762046bd749a2e632ccbb", "-encryption_kid", "0" * 32)
    ffmpeg("-i", clear, "-c", "copy", "-encryption_scheme", "cenc-aes-ctr", *key, path)
    with pytest.raises(PermanentError, match="it is encrypted"):
        await encode(path)


async def test_pictures_in_a_codec_that_nobody_decodes(tmp_path: Path) -> None:
    path = tmp_path / "new.mp4"
    ffmpeg(*flashing(1), *X264, path)
    data = path.read_bytes()
    at = data.rindex(b"avc1")
    path.write_bytes(data[:at] + b"zvc9" + data[at + 4 :])
    with pytest.raises(PermanentError, match="codec zvc9 is not supported by this ffmpeg"):
        await encode(path)
