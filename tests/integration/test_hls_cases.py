"""Recordings of every kind become HLS whose every segment decodes alone."""

import json
import re
from pathlib import Path

import m3u8  # type: ignore[import-untyped]  # it ships no types
import pytest
from tests.support.hls_media import (
    AAC,
    H264,
    HAS_STRICT_PARSER,
    NEEDS_FFMPEG,
    PICTURE,
    SOUND,
    Encoded,
    brightness,
    encode,
    ffmpeg,
    recording,
    strictly_parsed,
    videos,
)

from cefmp4.hls.result import Tier
from cefmp4.model.rendition import CodecChoice

pytestmark = [pytest.mark.integration, NEEDS_FFMPEG]
LADDER_180 = [("hevc-180p", 320, 180, 30.0), ("h264-180p", 320, 180, 30.0)]


def full_range(luma: int) -> float:
    return (luma - 16) * 255 / 219


def codecs(encoded: Encoded) -> list[str]:
    return [track.header.codec for track in encoded.result.tracks]


async def test_picture_and_sound(tmp_path: Path) -> None:
    encoded = await encode(recording(tmp_path, seconds=8))
    assert videos(encoded.result) == LADDER_180
    assert codecs(encoded)[0].startswith("hvc1.1.6.L")
    assert codecs(encoded)[1].startswith("avc1.6400")
    assert codecs(encoded)[2:] == ["mp4a.40.2"]
    lengths = [[round(row.end - row.start, 2) for row in t.rows] for t in encoded.result.tracks]
    assert lengths[:2] == [[6.0, 2.0], [6.0, 2.0]]
    assert encoded.result.tier is Tier.CPU
    assert encoded.result.warnings == 0
    assert encoded.progress
    assert encoded.progress[-1] == pytest.approx(1.0, abs=0.05)


async def test_a_picture_far_larger_than_the_ladder_is_brought_down_once(tmp_path: Path) -> None:
    target = tmp_path / "clip.mp4"
    large = ("-f", "lavfi", "-i", "testsrc2=s=2560x1440:r=10")
    ffmpeg(*large, *SOUND, "-t", "1", *H264, *AAC, target)
    encoded = await encode(target)
    assert videos(encoded.result) == [
        ("hevc-1080p", 1920, 1080, 10.0),
        ("hevc-720p", 1280, 720, 10.0),
        ("hevc-540p", 960, 540, 10.0),
        ("hevc-360p", 640, 360, 10.0),
        ("h264-720p", 1280, 720, 10.0),
    ]
    assert encoded.result.poster_key
    assert encoded.result.thumbnails_key


async def test_what_the_playlists_say(tmp_path: Path) -> None:
    encoded = await encode(recording(tmp_path, seconds=8))
    master = m3u8.loads(encoded.master)
    assert master.is_variant
    assert master.is_independent_segments
    assert [p.stream_info.resolution for p in master.playlists] == [(320, 180), (320, 180)]
    assert [p.stream_info.frame_rate for p in master.playlists] == [30.0, 30.0]
    assert [p.stream_info.video_range for p in master.playlists] == ["SDR", "SDR"]
    assert len(master.iframe_playlists) == 2
    (audio,) = master.media
    assert (audio.type, audio.default, audio.channels) == ("AUDIO", "YES", "2")
    targets = set()
    for variant in master.playlists:
        info = variant.stream_info
        assert info.codecs.endswith(",mp4a.40.2")
        assert 0 < info.average_bandwidth <= info.bandwidth
        media = m3u8.loads(encoded.text(variant.uri))
        assert media.is_endlist
        assert media.playlist_type == "vod"
        assert sum(segment.duration for segment in media.segments) == pytest.approx(8.0, abs=0.001)
        assert all(s.duration <= media.target_duration + 0.5 for s in media.segments)
        targets.add(media.target_duration)
    targets.add(m3u8.loads(encoded.text(audio.uri)).target_duration)
    assert targets == {6}


@pytest.mark.skipif(not HAS_STRICT_PARSER, reason="needs hls-parser: scripts/hls_tools")
async def test_the_strict_parser_that_reads_every_playlist_is_strict(tmp_path: Path) -> None:
    encoded = await encode(recording(tmp_path))
    right = encoded.text("hevc-180p.1/index.m3u8")
    assert strictly_parsed({"master": encoded.master, "media": right}) == 2
    with pytest.raises(AssertionError, match="target duration"):
        strictly_parsed({"media": re.sub(r"(TARGETDURATION):\d+", r"\1:1", right)})


async def test_the_bandwidths_are_true(tmp_path: Path) -> None:
    encoded = await encode(recording(tmp_path, seconds=8))
    sound = next(track for track in encoded.result.tracks if not track.is_video)
    peak = max(row.bytes * 8 / (row.end - row.start) for row in sound.rows)
    for variant, track in zip(
        m3u8.loads(encoded.master).playlists, encoded.result.tracks, strict=False
    ):
        most = max(row.bytes * 8 / (row.end - row.start) for row in track.rows)
        assert variant.stream_info.bandwidth == pytest.approx(most + peak, rel=0.1)


async def test_the_rows_and_the_result_document(tmp_path: Path) -> None:
    encoded = await encode(recording(tmp_path, seconds=8), has_thumbnails=True)
    document = json.loads(encoded.text("attempt.1/result.json"))
    assert document["tier"] == "cpu"
    assert document["duration_seconds"] == pytest.approx(8.0, abs=0.05)
    first = document["renditions"][0]["segments"][0]
    assert first["key"] in encoded.store.keys
    assert (first["index"], first["start"], first["end"]) == (0, 0.0, 6.0)
    assert (first["size"], first["fps"], first["bucket"]) == ("320x180", 30.0, "recordings")
    assert document["poster_key"] in encoded.store.keys
    thumbnails = encoded.store.data(document["thumbnails_key"]).decode()
    assert thumbnails.count("sprite.jpg#xywh=") == 4
    assert "00:00:06.000 --> 00:00:08.000" in thumbnails


async def test_progress_is_told_although_ffmpeg_is_silent_until_the_thumbnails_are_done(
    tmp_path: Path,
) -> None:
    encoded = await encode(recording(tmp_path, seconds=12), has_thumbnails=True)
    told = encoded.progress
    assert told == sorted(told)
    assert any(0.05 < fraction < 0.95 for fraction in told)


async def test_content_types(tmp_path: Path) -> None:
    encoded = await encode(recording(tmp_path))
    types = set()
    for key in encoded.store.keys:
        stored = await encoded.store.head(key)
        assert stored is not None
        types.add((Path(key).suffix, stored.content_type))
    assert types == {
        (".m3u8", "application/vnd.apple.mpegurl"),
        (".mp4", "video/mp4"),
        (".m4s", "video/iso.segment"),
        (".json", "application/json"),
        (".jpg", "image/jpeg"),
        (".vtt", "text/vtt"),
    }


async def test_the_master_comes_last_and_playlists_after_what_they_name(tmp_path: Path) -> None:
    encoded = await encode(recording(tmp_path))
    puts = [call.key for call in encoded.store.journal if call.operation == "put_object"]
    assert puts[-1] == "hls/s1/master.m3u8"
    first_playlist = next(i for i, key in enumerate(puts) if key.endswith(".m3u8"))
    assert not any(key.endswith((".m4s", "init.mp4")) for key in puts[first_playlist:])


async def test_without_sound(tmp_path: Path) -> None:
    encoded = await encode(recording(tmp_path, "-an"))
    assert videos(encoded.result) == LADDER_180
    assert "TYPE=AUDIO" not in encoded.master


async def test_one_frame(tmp_path: Path) -> None:
    encoded = await encode(recording(tmp_path, "-an", "-frames:v", "1"))
    assert [track.frames for track in encoded.result.tracks] == [1, 1]
    assert encoded.result.duration_s == pytest.approx(1 / 30, abs=0.001)


async def test_a_varying_frame_rate_becomes_constant(tmp_path: Path) -> None:
    uneven = "select='if(lt(t,3),not(mod(n,2)),not(mod(n,3)))'"
    path = recording(tmp_path, "-vf", uneven, "-fps_mode", "vfr", seconds=9)
    encoded = await encode(path)
    assert encoded.result.duration_s == pytest.approx(9.0, abs=0.1)
    (rate,) = {rate for _, _, _, rate in videos(encoded.result)}
    assert rate in (15.0, 30.0)


async def test_odd_sides(tmp_path: Path) -> None:
    odd = tmp_path / "odd.mp4"
    source = ("-f", "lavfi", "-i", "testsrc2=s=854x480:r=25", "-t", "1")
    ffmpeg(*source, "-vf", "crop=853:479:exact=1,format=yuv444p", *H264, odd)
    encoded = await encode(odd)
    assert videos(encoded.result) == [
        ("hevc-478p", 852, 478, 25.0),
        ("hevc-360p", 640, 360, 25.0),
        ("h264-478p", 852, 478, 25.0),
    ]


async def test_rotated(tmp_path: Path) -> None:
    turned = tmp_path / "turned.mp4"
    upright = recording(tmp_path, seconds=2)
    ffmpeg("-i", upright, "-c", "copy", "-metadata:s:v", "rotate=90", turned)
    encoded = await encode(turned, may_copy=True)
    assert videos(encoded.result)[0] == ("hevc-180p", 180, 320, 30.0)
    assert encoded.result.not_copied[0].startswith("it is rotated")


async def test_pixels_that_are_not_square(tmp_path: Path) -> None:
    path = recording(tmp_path, "-an", "-vf", "setsar=4/3", seconds=1)
    encoded = await encode(path, may_copy=True)
    assert videos(encoded.result)[0][1:3] == (426, 180)


async def test_ten_bits_stay_ten_bits_in_hevc(tmp_path: Path) -> None:
    path = recording(tmp_path, "-an", "-pix_fmt", "yuv420p10le", seconds=2)
    encoded = await encode(path)
    assert codecs(encoded)[0].startswith("hvc1.2.4.L")
    assert codecs(encoded)[1].startswith("avc1.6400")


async def test_interlaced(tmp_path: Path) -> None:
    fields = ("-vf", "interlace", "-flags", "+ilme+ildct", "-x264-params", "tff=1")
    encoded = await encode(recording(tmp_path, "-an", *fields, seconds=2), may_copy=True)
    assert encoded.result.not_copied == ("it is interlaced",)
    assert {rate for _, _, _, rate in videos(encoded.result)} == {15.0}


async def test_two_audio_tracks(tmp_path: Path) -> None:
    path = tmp_path / "two.mkv"
    tracks = ("-map", "0", "-map", "1", "-map", "1")
    tags = ("-metadata:s:a:0", "language=deu", "-metadata:s:a:1", "language=fra")
    ffmpeg(*PICTURE, *SOUND, "-t", "2", *tracks, *H264, *AAC, *tags, path)
    encoded = await encode(path)
    media = m3u8.loads(encoded.master).media
    assert [(m.language, m.default) for m in media] == [("deu", "YES"), ("fra", "NO")]


async def test_only_what_an_edit_list_shows(tmp_path: Path) -> None:
    whole = recording(tmp_path, "-bf", "2", "-g", "60", seconds=8)
    cut = tmp_path / "cut.mp4"
    ffmpeg("-ss", "1.5", "-i", whole, "-c", "copy", cut)
    encoded = await encode(cut, may_copy=True)
    assert encoded.result.not_copied == ("an edit list cuts its start",)
    assert encoded.result.duration_s == pytest.approx(6.5, abs=0.05)


async def test_hdr10_keeps_its_colours_and_an_sdr_rung_stands_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "hdr.mp4"
    parameters = (
        "log-level=error:hdr10=1:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc:"
        "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1):"
        "max-cll=1000,400"
    )
    colors = ("bt2020", "smpte2084", "bt2020nc")
    tags = zip(("-color_primaries", "-color_trc", "-colorspace"), colors, strict=True)
    ffmpeg(
        *(*PICTURE, "-t", "2", "-pix_fmt", "yuv420p10le", "-c:v", "libx265"),
        *("-preset", "ultrafast", "-x265-params", parameters),
        *(word for tag in tags for word in tag),
        *("-tag:v", "hvc1", path),
    )
    encoded = await encode(path)
    ranges = [p.stream_info.video_range for p in m3u8.loads(encoded.master).playlists]
    assert ranges == ["PQ", "SDR"]
    init = encoded.store.data(f"hls/s1/{encoded.result.tracks[0].folder}/init.mp4")
    assert codecs(encoded)[0].startswith("hvc1.2.4")
    # Mastering display (137) and content light level (144), as the prefix SEI of hvcC.
    assert bytes([0x4E, 0x01, 137, 24]) in init
    assert bytes([0x4E, 0x01, 144, 4]) in init


async def test_a_fitting_recording_is_copied(tmp_path: Path) -> None:
    path = recording(tmp_path, "-bf", "2", seconds=9)
    encoded = await encode(path, may_copy=True)
    assert encoded.result.tier is Tier.COPY
    assert encoded.result.not_copied == ()
    assert [track.encoder for track in encoded.result.tracks] == ["copy", "aac"]
    assert encoded.result.tracks[0].frames == 270
    assert encoded.result.poster_key in encoded.store.keys


@pytest.mark.parametrize("may_copy", [True, False])
async def test_thumbnails_and_poster_show_their_moments(tmp_path: Path, may_copy: bool) -> None:
    """A recording that gets brighter every two seconds; the poster is of the second step."""
    path = tmp_path / "brighter.mp4"
    picture = "nullsrc=s=320x180:r=30,geq=lum='30+20*floor(T/2)':cb=128:cr=128"
    keys = ("-g", "30", "-x264-params", "scenecut=0:open-gop=0", "-pix_fmt", "yuv420p")
    ffmpeg("-f", "lavfi", "-i", picture, "-t", "21", *keys, *H264, path)
    encoded = await encode(path, may_copy=may_copy, codecs=CodecChoice.H264)
    assert (encoded.result.tier is Tier.COPY) == may_copy
    folder, _, _ = encoded.result.thumbnails_key.rpartition("/")
    sprite = brightness(encoded.store.data(f"{folder}/sprite.jpg"), columns=11)
    assert sprite == pytest.approx([full_range(30 + 20 * step) for step in range(11)], abs=4)
    (poster,) = brightness(encoded.store.data(encoded.result.poster_key), columns=1)
    assert poster == pytest.approx(full_range(50), abs=4)


async def test_hevc_is_copied_where_hevc_alone_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "hevc.mp4"
    closed = "log-level=error:keyint=60:min-keyint=60:open-gop=0"
    hevc = ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", closed)
    ffmpeg(*PICTURE, "-t", "5", *hevc, path)  # tagged hev1 by ffmpeg
    encoded = await encode(path, may_copy=True, codecs=CodecChoice.HEVC)
    assert encoded.result.tier is Tier.COPY
    assert codecs(encoded)[0].startswith("hvc1.")


async def test_what_is_above_the_rungs_that_are_asked_for_is_brought_down(tmp_path: Path) -> None:
    path = recording(tmp_path)
    encoded = await encode(path, may_copy=True, rungs=(160, 120))
    assert encoded.result.not_copied == ("it is larger than 160p",)
    names = [track.name for track in encoded.result.tracks]
    assert names == ["hevc-160p", "hevc-120p", "h264-160p", "audio-0"]


@pytest.mark.parametrize(
    ("codec", "options", "reason"),
    [
        ("libx264", ("-g", "240", "-sc_threshold", "0"), "key frames are"),
        ("libx264", ("-x264-params", "open-gop=1:bframes=3:keyint=30"), "pictures are shown|open"),
        ("libx264", ("-pix_fmt", "yuv422p"), "its profile is High 4:2:2"),
        ("libx265", ("-x265-params", "open-gop=1:keyint=30:bframes=3"), "pictures are shown|open"),
    ],
)
async def test_what_is_not_copied(
    tmp_path: Path, codec: str, options: tuple[str, ...], reason: str
) -> None:
    path = tmp_path / "source.mp4"
    ffmpeg(*PICTURE, "-t", "8", "-c:v", codec, "-preset", "superfast", *options, path)
    only = CodecChoice.HEVC if codec == "libx265" else CodecChoice.H264
    encoded = await encode(path, may_copy=True, codecs=only)
    assert encoded.result.tier is Tier.CPU
    assert any(part in encoded.result.not_copied[0] for part in reason.split("|"))
