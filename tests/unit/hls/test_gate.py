"""What counts as complete."""

from dataclasses import replace

import pytest
from tests.hls_parts import track

from cefmp4.hls import gate
from cefmp4.hls.examined import AudioTrack
from cefmp4.hls.result import StoredTrack

SOUND = AudioTrack(
    index=1, codec="aac", profile="LC", channels=2, language="", start_s=0.0, duration_s=12.0
)


def problems(expected_s: float, *tracks: StoredTrack) -> list[str]:
    return list(gate.video_problems({track.name: track for track in tracks}, expected_s))


@pytest.mark.parametrize(
    ("duration_s", "tolerance_s"),
    [(0.033, 0.1), (3.0, 0.3), (10.0, 1.0), (30.0, 1.0), (100.0, 2.0)],
)
def test_the_tolerance(duration_s: float, tolerance_s: float) -> None:
    assert gate.duration_tolerance_s(duration_s) == pytest.approx(tolerance_s)


def test_whole_and_short() -> None:
    whole = track((6.0, 1), (6.0, 1))
    assert problems(12.0, whole) == []
    assert problems(12.5, whole) == []
    assert problems(15.0, whole) == ["hevc-720p lasts 12.00 s of 15.00 s"]
    assert problems(10.0, whole) == ["hevc-720p lasts 12.00 s of 10.00 s"]


def test_nothing_at_all() -> None:
    assert list(gate.video_problems({"hevc-720p": None}, 12.0)) == ["hevc-720p is empty"]


def test_renditions_must_agree() -> None:
    first = track((6.0, 1), (6.0, 1))
    assert problems(12.0, first, track((5.0, 1), (7.0, 1), name="low")) == [
        "segment 0 of low is not aligned with hevc-720p"
    ]
    assert problems(12.0, first, track((6.0, 1), (5.0, 1), (1.0, 1), name="low")) == [
        "hevc-720p has 2 segments, low 3"
    ]


def test_sound_may_be_longer_but_not_shorter() -> None:
    sound = track((6.0, 1), (6.1, 1), name="audio-0")
    assert list(gate.audio_problems([(sound, SOUND)])) == []
    longer = replace(SOUND, duration_s=15.0)
    assert list(gate.audio_problems([(sound, longer)])) == ["audio-0 lasts 12.10 s of 15.00 s"]
    assert list(gate.audio_problems([(sound, replace(SOUND, duration_s=None))])) == []
