"""Which thumbnails, and where in the sprite."""

from fractions import Fraction

import pytest

from cefmp4.hls.thumbnails import plan_sprite, webvtt
from cefmp4.model.rendition import Picture

PICTURE = Picture(width=1920, height=1080, frame_rate=Fraction(30))


@pytest.mark.parametrize(
    ("seconds", "interval", "count", "columns", "rows"),
    [(0.033, 2, 1, 1, 1), (8.0, 2, 4, 4, 1), (60, 2, 30, 16, 2), (36_000, 150, 240, 16, 15)],
)
def test_plans(seconds: float, interval: int, count: int, columns: int, rows: int) -> None:
    plan = plan_sprite(PICTURE, seconds)
    assert (plan.interval_s, plan.count, plan.columns, plan.rows) == (
        interval,
        count,
        columns,
        rows,
    )


def test_sizes() -> None:
    upright = plan_sprite(Picture(width=360, height=640, frame_rate=Fraction(30)), 8)
    assert upright.size == (90, 160)
    assert upright.poster_size == (360, 640)


def test_the_track() -> None:
    text = webvtt(plan_sprite(PICTURE, 3601.5), "sprite.jpg", 3601.5)
    cues = text.split("\n\n")
    assert cues[0] == "WEBVTT"
    assert cues[1] == "00:00:00.000 --> 00:00:16.000\nsprite.jpg#xywh=0,0,160,90"
    assert cues[18].startswith("00:04:32.000 --> 00:04:48.000\nsprite.jpg#xywh=160,90,")
    assert cues[-1].startswith("01:00:00.000 --> 01:00:01.500")
