"""Which thumbnails a recording gets, and the WebVTT track that points into their sprite. Pure."""

import math
from dataclasses import dataclass

from cefmp4.model.rendition import Picture

_MAX_THUMBNAILS = 240
_COLUMNS = 16
_LONG_SIDE = 160
_POSTER_LONG_SIDE = 1280
_MIN_INTERVAL_S = 2
_POSTER_SHARE = 0.1  # the very first frames are often black
_MAX_POSTER_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SpritePlan:
    """One image for all: a player fetches it once."""

    interval_s: int
    count: int
    size: tuple[int, int]  # of a thumbnail
    poster_size: tuple[int, int]
    poster_s: float

    @property
    def columns(self) -> int:
        return min(self.count, _COLUMNS)

    @property
    def rows(self) -> int:
        return math.ceil(self.count / self.columns)

    @property
    def poster_number(self) -> int:
        """The thumbnail that shows what the poster shows."""
        return int(self.poster_s // self.interval_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """A sprite of thumbnails as planned, and a poster."""

    sprite: bytes = b""
    poster: bytes = b""
    plan: SpritePlan | None = None
    errors: int = 0


def plan_sprite(picture: Picture, duration_s: float) -> SpritePlan:
    interval = max(_MIN_INTERVAL_S, math.ceil(duration_s / _MAX_THUMBNAILS))
    return SpritePlan(
        interval_s=interval,
        count=max(1, math.ceil(duration_s / interval - 1e-6)),
        size=_within(picture, _LONG_SIDE),
        poster_size=_within(picture, _POSTER_LONG_SIDE),
        poster_s=min(duration_s * _POSTER_SHARE, _MAX_POSTER_S),
    )


def webvtt(plan: SpritePlan, image: str, duration_s: float) -> str:
    cues, (width, height) = ["WEBVTT\n"], plan.size
    for number in range(plan.count):
        start = number * plan.interval_s
        end = min(start + plan.interval_s, max(duration_s, start + 0.001))
        row, column = divmod(number, plan.columns)
        box = f"{column * width},{row * height},{width},{height}"
        cues.append(f"{_clock(start)} --> {_clock(end)}\n{image}#xywh={box}\n")
    return "\n".join(cues)


def _within(picture: Picture, long_side: int) -> tuple[int, int]:
    scale = min(1.0, long_side / max(picture.width, picture.height))
    return _even(picture.width * scale), _even(picture.height * scale)


def _even(length: float) -> int:
    return max(2, round(length / 2) * 2)


def _clock(seconds: float) -> str:
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d}.{rest % 1000:03d}"
