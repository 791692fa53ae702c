"""Which key frames of a copy become thumbnails, and that no decoder holds the copy up."""

import asyncio
from fractions import Fraction

import pytest
from tests.hls_parts import INIT, TIMESCALE, fragment, parsed

from cefmp4.errors import TransientError
from cefmp4.hls.encode import ImagePump
from cefmp4.hls.stills import Stills
from cefmp4.hls.thumbnails import plan_sprite
from cefmp4.media.ffmpeg_run import FfmpegRun, Pace, RunLimits
from cefmp4.model.rendition import Picture

PICTURE = Picture(width=320, height=180, frame_rate=Fraction(30))
EVERYTHING = 'for last in "$@"; do :; done; cat > /proc/self/fd/${last#pipe:}'


async def made(
    lengths_s: list[float],
    planned_s: float,
    decoder: str = EVERYTHING,
    *,
    grain: int = 1,
    **options: float,
) -> bytes:
    """What a decoder got of a copy whose key frames are that far apart. Every key frame has a size
    of its own, by which it is known again."""
    stills, taken = Stills(plan_sprite(PICTURE, planned_s), **options), ImagePump("sprite")

    async def copy() -> None:
        at = 0
        for number, seconds in enumerate(lengths_s, 1):
            data = INIT + fragment(at, round(seconds * 30), sizes=number * grain)
            (piece,) = parsed(data)
            await stills.take(piece)
            at += round(seconds * TIMESCALE)
        await stills.end()

    async def decode() -> None:
        run = FfmpegRun(
            limits=RunLimits(grace_s=20, stall_s=20),
            pace=Pace(),
            on_pace=lambda _pace: None,
            feed=stills.feed,
        )
        try:
            await run.run(["sh", "-c", decoder, "sh"], [taken])
        finally:
            stills.abandon()

    async with asyncio.timeout(20):
        decoding, copying = asyncio.create_task(decode()), asyncio.create_task(copy())
        await copying
        await decoding
    return bytes(taken.data)


def shown(data: bytes) -> list[int]:
    """The number of the key frame on each thumbnail, in order."""
    sizes = []
    for position, piece in enumerate(parsed(data)):
        assert (piece.start, piece.duration) == (position * TIMESCALE, TIMESCALE)
        (sample,) = piece.samples
        assert sample.is_sync
        assert bytes(piece.first_sample) == bytes(sample.size)
        sizes.append(sample.size)
    return sizes


@pytest.mark.parametrize(
    ("lengths_s", "planned_s", "expected"),
    [
        ([2, 2, 2], 6, [1, 2, 3]),
        ([1, 1, 1, 1, 1], 5, [1, 3, 5]),
        ([6, 4], 10, [1, 1, 1, 2, 2]),  # one key frame stands for three thumbnails
        ([2.5, 2.5], 5, [1, 1, 2]),
        ([2, 1.8], 6, [1, 2, 2]),  # shorter than it says: the last picture once more
        ([2, 2, 2], 3.9, [1, 2]),  # and longer
    ],
)
async def test_a_thumbnail_shows_the_key_frame_before_it(
    lengths_s: list[float], planned_s: float, expected: list[int]
) -> None:
    assert shown(await made(lengths_s, planned_s)) == expected


async def test_a_copy_without_pictures_ends() -> None:
    assert await made([], 6) == b""


async def test_a_decoder_that_ends_at_once_holds_nothing_up() -> None:
    assert await made([2] * 100, 200, "exit 1") == b""


async def test_a_decoder_that_takes_nothing_is_given_up() -> None:
    with pytest.raises(TransientError, match="no thumbnail was decoded"):
        await made([2] * 30, 60, "sleep 30", grain=2000, patience_s=0.2)
