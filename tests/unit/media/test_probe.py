"""ffprobe's answer describes foreign bytes: whatever it says, it is understood or left out."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cefmp4.media.ffprobe import document_of
from cefmp4.media.probe import parse_header, parse_tail
from cefmp4.media.source import CONTAINERS, UnusableSourceError
from cefmp4.model.media import MediaInfo, Track


def header(**answer: Any) -> MediaInfo:
    return parse_header(document_of(json.dumps(answer).encode()))


def only_track(**stream: Any) -> Track:
    (track,) = header(streams=[stream]).tracks
    return track


def test_an_ordinary_answer() -> None:
    media = header(
        format={"format_name": "mov,mp4", "duration": "10.010000", "bit_rate": "277000"},
        streams=[
            {
                "index": 0,
                "codec_type": "video",
                "codec_name": "hevc",
                "profile": "Main 10",
                "width": 3840,
                "height": 2160,
                "avg_frame_rate": "30000/1001",
                "r_frame_rate": "30000/1001",
                "color_transfer": "smpte2084",
                "disposition": {"attached_pic": 0},
            },
            {
                "index": 1,
                "codec_type": "audio",
                "codec_name": "aac",
                "sample_rate": "48000",
                "channels": 2,
                "avg_frame_rate": "0/0",
                "tags": {"language": "deu"},
            },
        ],
    )
    assert (media.container, media.duration_seconds, media.bit_rate) == ("mov,mp4", 10.01, 277000)
    video, audio = media.tracks
    assert (video.codec, video.profile, video.hdr) == ("hevc", "Main 10", "PQ")
    assert (video.width, video.height, video.frame_rate) == (3840, 2160, 29.97)
    assert video.rotation == 0
    assert (audio.channels, audio.sample_rate, audio.language) == (2, 48000, "deu")
    assert (audio.frame_rate, audio.rotation, audio.width) == (None, None, None)


@pytest.mark.parametrize(("transfer", "hdr"), [("arib-std-b67", "HLG"), ("bt709", None)])
def test_hdr_by_its_transfer_curve(transfer: str, hdr: str | None) -> None:
    assert only_track(codec_type="video", color_transfer=transfer).hdr == hdr


@pytest.mark.parametrize(
    ("told", "rotation"),
    [
        ({"side_data_list": [{"rotation": -90}]}, 90),  # a phone held upright
        ({"side_data_list": [{"rotation": 90}]}, 270),
        ({"side_data_list": [{"rotation": -180}]}, 180),
        ({"side_data_list": [{"rotation": "-89.99"}]}, 90),
        ({"side_data_list": [{}, {"rotation": 0}]}, 0),
        ({"side_data_list": "no list", "tags": {"rotate": "270"}}, 270),
        ({"tags": {"rotate": "nonsense"}}, 0),
        ({}, 0),
    ],
)
def test_rotation_is_clockwise_and_square(told: dict[str, Any], rotation: int) -> None:
    assert only_track(codec_type="video", **told).rotation == rotation


@pytest.mark.parametrize(
    ("average", "claimed", "rate"),
    [
        ("25/1", "50/1", 25.0),
        ("0/0", "24000/1001", 23.976),
        ("0/0", "0/0", None),
        ("1/0", "-5/1", None),
        ("garbage", None, None),
        ("1e400/1", "nan/1", None),
    ],
)
def test_frame_rate(average: str, claimed: str | None, rate: float | None) -> None:
    track = only_track(codec_type="video", avg_frame_rate=average, r_frame_rate=claimed)
    assert track.frame_rate == rate


def test_an_undetermined_language_is_none() -> None:
    assert only_track(codec_type="audio", tags={"language": "und"}).language is None


def test_a_cover_is_flagged() -> None:
    assert only_track(codec_type="video", disposition={"attached_pic": 1}).is_cover


def test_the_longest_track_where_the_container_is_silent() -> None:
    media = header(format={"duration": "N/A"}, streams=[{"duration": "1.5"}, {"duration": "2.5"}])
    assert media.duration_seconds == 2.5


def test_absurd_values_are_left_out() -> None:
    media = header(
        format={"format_name": ["x"], "duration": "1e309", "bit_rate": -5},
        streams=[{"codec_type": "x" * 1000, "width": "NaN", "channels": 1e300, "index": None}, 7],
    )
    assert (media.container, media.duration_seconds, media.bit_rate) == (None, None, None)
    assert media.tracks[0] == Track(index=0, kind="data", codec="unknown")
    assert media.tracks[1] == Track(index=1, kind="data", codec="unknown")


def test_text_is_short_and_printable() -> None:
    track = only_track(codec_type="audio", tags={"language": "d\x1b[31m\ud800" + "x" * 500})
    assert track.language is not None
    assert track.language.isprintable()
    assert len(track.language) == 64
    track.language.encode("utf-8")


@pytest.mark.parametrize("answer", [b"", b"[]", b"null", b"{", b"\xff", b"[" * 100_000])
def test_no_answer(answer: bytes) -> None:
    with pytest.raises(UnusableSourceError, match="makes no sense"):
        document_of(answer)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
_FIELD = st.sampled_from(
    ["index", "codec_type", "tags", "disposition", "side_data_list", "avg_frame_rate", "duration"]
)


@given(st.dictionaries(_FIELD, _JSON), _JSON, _JSON)
def test_any_json_is_survived(stream: dict[str, Any], container: Any, packets: Any) -> None:
    told = json.dumps({"streams": [stream], "format": container, "packets": packets}).encode()
    answer = document_of(told)
    assert len(parse_header(answer).tracks) == 1
    parse_tail(answer)


def test_the_tail_tells_the_duration() -> None:
    answer: dict[str, Any] = {
        "packets": [
            {"pts_time": "11.4", "duration_time": "0.02"},
            {"pts_time": "11.39", "duration_time": "0.04"},
            {"pts_time": "N/A"},
        ],
        "format": {"start_time": "1.4"},
    }
    assert parse_tail(answer) == (True, 10.03)
    assert parse_tail({"packets": [{}]}) == (True, None)
    assert parse_tail({"packets": []}) == (False, None)


def test_no_format_that_names_other_files_is_allowed() -> None:
    allowed = set(CONTAINERS.split(","))
    assert not allowed & {
        "hls", "concat", "dash", "sdp", "rtsp", "image2", "image2pipe", "lavfi", "imf",
        "ffmetadata", "tedcaptions", "webm_dash_manifest", "srt", "ass",
        "data", "bluray", "libopenmpt", "vobsub",
    }  # fmt: skip
