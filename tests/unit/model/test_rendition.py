"""The ladder: what is made of which picture."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cefmp4.model.rendition import (
    RUNGS,
    Codec,
    CodecChoice,
    Picture,
    ladder,
    shown_size,
    snap_frame_rate,
)


def picture(width: int, height: int, **changed: object) -> Picture:
    values: dict[str, object] = {"frame_rate": Fraction(30), **changed}
    return Picture(width=width, height=height, **values)  # type: ignore[arg-type]  # of one test


def names(
    width: int,
    height: int,
    choice: CodecChoice = CodecChoice.BOTH,
    rungs: tuple[int, ...] = RUNGS,
) -> list[str]:
    return [rendition.name for rendition in ladder(picture(width, height), choice, rungs)]


def test_the_full_ladder() -> None:
    assert names(1920, 1080) == [
        "hevc-1080p",
        "hevc-720p",
        "hevc-540p",
        "hevc-360p",
        "h264-720p",
    ]


def test_one_codec_alone() -> None:
    assert names(1280, 720, CodecChoice.HEVC) == ["hevc-720p", "hevc-540p", "hevc-360p"]
    assert names(1280, 720, CodecChoice.H264) == ["h264-720p", "h264-540p", "h264-360p"]


def test_more_than_1080_lines_become_1080() -> None:
    top = ladder(picture(3840, 2160))[0]
    assert (top.width, top.height) == (1920, 1080)


def test_rungs_of_ones_own() -> None:
    """As they are asked for, until the source is smaller than the highest."""
    asked = (1080, 900, 720)
    assert names(1920, 1080, CodecChoice.HEVC, asked) == ["hevc-1080p", "hevc-900p", "hevc-720p"]
    assert names(1600, 900, CodecChoice.HEVC, asked) == ["hevc-900p", "hevc-720p"]
    assert names(1280, 720, CodecChoice.HEVC, asked) == ["hevc-720p"]
    assert names(3840, 2160, CodecChoice.BOTH, (2160, 720)) == [
        "hevc-2160p",
        "hevc-720p",
        "h264-720p",
    ]
    assert names(1920, 1080, CodecChoice.BOTH, (480,)) == ["hevc-480p", "h264-480p"]


def test_small_and_odd_sources_keep_their_own_size_on_top() -> None:
    assert names(852, 478) == ["hevc-478p", "hevc-360p", "h264-478p"]
    assert names(320, 180) == ["hevc-180p", "h264-180p"]


def test_what_is_too_small_for_hevc_is_h264() -> None:
    assert names(34, 18) == names(34, 18, CodecChoice.HEVC) == ["h264-18p"]
    assert names(64, 64, CodecChoice.HEVC) == ["hevc-64p"]


def test_an_upright_picture_counts_by_its_short_side() -> None:
    first, *_, h264 = ladder(picture(1080, 1920))
    assert (first.name, first.width, first.height) == ("hevc-1080p", 1080, 1920)
    assert (h264.width, h264.height) == (720, 1280)


def test_ten_bits_and_hdr_stay_out_of_h264() -> None:
    hevc, *_, h264 = ladder(picture(1280, 720, bit_depth=10, hdr="PQ"))
    assert (hevc.codec, hevc.bit_depth, hevc.hdr) == (Codec.HEVC, 10, "PQ")
    assert (h264.codec, h264.bit_depth, h264.hdr) == (Codec.H264, 8, None)


def test_a_frugal_source_gets_no_more_bits_than_it_has() -> None:
    rich, poor = ladder(picture(1920, 1080))[0], ladder(picture(1920, 1080, bit_rate=500_000))[0]
    assert rich.peak_kbps == 11600
    assert poor.peak_kbps == 1200


@given(
    st.integers(16, 8000).map(lambda n: n // 2 * 2),
    st.integers(16, 8000).map(lambda n: n // 2 * 2),
    st.sampled_from(CodecChoice),
    st.lists(st.integers(60, 2160).map(lambda n: n * 2), min_size=1, unique=True),
)
def test_no_rung_is_larger_or_crooked(
    width: int, height: int, choice: CodecChoice, asked: list[int]
) -> None:
    rungs = ladder(picture(width, height), choice, sorted(asked, reverse=True))
    assert rungs
    assert len({rung.name for rung in rungs}) == len(rungs)
    for rung in rungs:
        assert rung.width <= width
        assert rung.height <= height
        assert rung.width % 2 == rung.height % 2 == 0
        assert rung.peak_kbps >= 300


@pytest.mark.parametrize(
    ("given_rate", "expected"),
    [
        (Fraction(30), Fraction(30)),
        (Fraction(2997, 100), Fraction(30000, 1001)),
        (Fraction(23976, 1000), Fraction(24000, 1001)),
        (Fraction(60), Fraction(60)),
        (Fraction(120), Fraction(60)),
        (Fraction(100), Fraction(50)),
        (Fraction(120000, 1001), Fraction(60000, 1001)),
        (Fraction(15), Fraction(15)),
        (Fraction(25, 2), Fraction(25, 2)),
        (Fraction(90000), Fraction(90000, 2048)),
    ],
)
def test_frame_rates(given_rate: Fraction, expected: Fraction) -> None:
    assert float(snap_frame_rate(given_rate)) == pytest.approx(float(expected), rel=1e-3)


@given(st.fractions(min_value=Fraction(1, 100), max_value=100_000))
def test_no_rate_is_above_sixty(rate: Fraction) -> None:
    assert 0 < snap_frame_rate(rate) <= 60


def test_the_shown_size() -> None:
    assert shown_size(720, 576, Fraction(64, 45), 0) == (1024, 576)
    assert shown_size(640, 360, Fraction(1), 90) == (360, 640)
    assert shown_size(853, 479, Fraction(1), 0) == (852, 478)
    assert shown_size(640, 360, Fraction(1, 100_000), 0) == (640, 360)
