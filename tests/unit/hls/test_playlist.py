"""The playlists of tracks as they were stored."""

import re

import pytest
from tests.hls_parts import AUDIO, track

from cefmp4.hls import playlist


def attribute(text: str, name: str) -> list[str]:
    return re.findall(rf'[:,]{name}=("[^"]*"|[^,\n]*)', text)


def test_a_media_playlist() -> None:
    text = playlist.media_playlist(track((6.0, 1000), (2.5, 500)), 6)
    assert text.startswith("#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:6\n")
    assert '#EXT-X-MAP:URI="init.mp4"' in text
    assert "#EXTINF:2.500000,\nseg_00001.m4s\n" in text
    assert text.endswith("#EXT-X-ENDLIST\n")


def test_the_target_is_one_for_all_and_covers_the_longest() -> None:
    sound = track((6.016, 1), name="audio-0", header=AUDIO)
    assert playlist.target_duration([track((6.0, 1)), sound]) == 6
    assert playlist.target_duration([track((6.6, 1)), sound]) == 7
    assert playlist.target_duration([track((0.03, 1))]) == 1


def test_key_frames_are_byte_ranges() -> None:
    text = playlist.key_frame_playlist(track((6.0, 1000)), 6)
    assert "#EXT-X-I-FRAMES-ONLY" in text
    assert "#EXTINF:2.000000,\n#EXT-X-BYTERANGE:5000@0\nseg_00000.m4s\n" in text


def test_the_master_playlist() -> None:
    high = track((6.0, 750_000), (6.0, 375_000))
    low = track((6.0, 75_000), (6.0, 75_000), name="hevc-360p")
    sound = track((6.0, 96_000), name="audio-0", header=AUDIO, language="deu")
    text = playlist.master_playlist([high, low, sound])
    assert attribute(text, "BANDWIDTH")[:2] == ["1128000", "228000"]
    assert attribute(text, "AVERAGE-BANDWIDTH") == ["878000", "228000"]
    assert attribute(text, "CODECS")[0] == '"hvc1.1.6.L93.90,mp4a.40.2"'
    assert attribute(text, "RESOLUTION")[0] == "1280x720"
    assert attribute(text, "FRAME-RATE")[0] == "30.000"
    assert attribute(text, "VIDEO-RANGE")[0] == "SDR"
    assert attribute(text, "LANGUAGE") == ['"deu"']
    assert "\nhevc-720p.1/index.m3u8\n" in text
    assert attribute(text, "URI")[-1] == '"hevc-360p.1/iframes.m3u8"'
    assert text.count("#EXT-X-INDEPENDENT-SEGMENTS") == 1


def test_without_sound_no_group_is_named() -> None:
    assert "AUDIO" not in playlist.master_playlist([track((6.0, 1000))])


def test_hdr_is_told() -> None:
    assert attribute(playlist.master_playlist([track((6.0, 1), hdr="PQ")]), "VIDEO-RANGE") == [
        "PQ",
        "PQ",
    ]


def test_a_last_single_frame_is_not_the_peak() -> None:
    lone = track((6.0, 600_000), (6.0, 600_000), (0.033, 30_000))
    assert playlist.peak_bandwidth(lone) == pytest.approx(835_400, rel=0.001)


@pytest.mark.parametrize("tag", ['de"u', "und", "", "x", "a\nb", "ü" * 3])
def test_no_hostile_language_gets_into_an_attribute(tag: str) -> None:
    sound = track((6.0, 1), name="audio-0", header=AUDIO, language=tag)
    assert "LANGUAGE" not in playlist.master_playlist([track((6.0, 1)), sound])
