"""What is in a recording, by what ffprobe says of it, and how often it has to be asked."""

from typing import Any

import pytest
from tests.fake_ffprobe import FakeFfprobe

from cefmp4.hls.examined import ExaminedVideo, examine
from cefmp4.media.source import MediaSource, UnusableSourceError

SOURCE = MediaSource(url="http://recording/object")
SOUND = {"index": 1, "codec_type": "audio", "codec_name": "aac", "channels": 2, "duration": "4.5"}
FIRST = [{"stream_index": 0, "interlaced_frame": 0}]


def pictures(**of: Any) -> dict[str, Any]:
    usual = {"index": 0, "codec_type": "video", "codec_name": "h264", "width": 640, "height": 360}
    return {**usual, "avg_frame_rate": "25/1", "duration": "4.0", "pix_fmt": "yuv420p", **of}


def ffprobe(*streams: Any, frames: Any = FIRST, form: Any = None, **others: Any) -> FakeFfprobe:
    told = {"format_name": "mov,mp4", "duration": "4.5", **(form or {})}
    return FakeFfprobe(
        header={"format": told, "streams": list(streams), "frames": frames}, **others
    )


async def examined(asked: FakeFfprobe) -> ExaminedVideo:
    found = await examine(SOURCE, asked)
    assert isinstance(found, ExaminedVideo)
    return found


async def test_an_ordinary_recording_is_asked_about_once() -> None:
    asked = ffprobe(pictures(), SOUND)
    found = await examined(asked)
    assert (found.duration_s, found.whole_s, found.is_length_a_guess) == (4.0, 4.5, False)
    assert (found.video.codec, found.video.width, found.video.picture.height) == ("h264", 640, 360)
    assert [track.end_s for track in found.audio] == [4.5]
    assert asked.asked == ["header"]


async def test_first_pictures_that_come_late_are_asked_for() -> None:
    asked = ffprobe(
        pictures(),
        frames=[{"stream_index": 7}],
        frame={"frames": [{"stream_index": 0, "interlaced_frame": 1}]},
    )
    assert (await examined(asked)).video.is_interlaced
    assert asked.asked == ["header", "frame"]


async def test_a_length_that_nothing_tells_is_measured() -> None:
    packets = {"packets": [{"pts_time": "3.0", "flags": "K_"}, {"pts_time": "2.96"}]}
    asked = ffprobe(pictures(duration=None), form={"duration": None}, last=packets)
    found = await examined(asked)
    assert (found.duration_s, found.is_length_a_guess) == (3.0, True)
    assert asked.asked == ["header", "last"]


async def test_a_length_that_cannot_be_measured() -> None:
    asked = ffprobe(pictures(duration=None), form={"duration": None})
    with pytest.raises(UnusableSourceError, match="duration cannot be found out"):
        await examine(SOURCE, asked)


async def test_the_clock_of_a_transport_stream_is_not_believed() -> None:
    found = await examined(ffprobe(pictures(), form={"format_name": "mpegts"}))
    assert (found.whole_s, found.is_length_a_guess) == (0.0, True)


async def test_the_light_of_hdr_is_asked_for() -> None:
    light = {"max_content": 900, "max_average": 300}
    asked = ffprobe(
        pictures(color_transfer="smpte2084", pix_fmt="yuv420p10le"),
        frame={"frames": [{"side_data_list": [light]}]},
    )
    found = await examined(asked)
    assert (found.video.picture.hdr, found.hdr10) == ("PQ", ("max-cll=900,300",))
    assert found.video.picture.bit_depth == 10


async def test_sound_alone() -> None:
    found = await examine(SOURCE, ffprobe(SOUND))
    assert not isinstance(found, ExaminedVideo)
    assert (found.duration_s, found.is_length_a_guess) == (4.5, False)


async def test_a_cover_is_no_video() -> None:
    cover = pictures(disposition={"attached_pic": 1})
    assert not isinstance(await examine(SOURCE, ffprobe(SOUND, cover)), ExaminedVideo)


@pytest.mark.parametrize(
    ("streams", "words"),
    [
        ((), "neither video nor audio"),
        ((pictures(codec_name="unknown", codec_tag_string="zvc9"),), "codec zvc9 is not supported"),
        ((pictures(width=99_999),), "its picture is 99999 x 360"),
        ((SOUND | {"codec_name": "none", "codec_tag_string": "apac"},), "is left out"),
    ],
)
async def test_nothing_can_be_made_of_it(streams: tuple[Any, ...], words: str) -> None:
    with pytest.raises(UnusableSourceError, match=words):
        await examine(SOURCE, ffprobe(*streams))


async def test_a_sound_that_nobody_decodes_is_left_out() -> None:
    spatial = SOUND | {"index": 2, "codec_tag_string": "apac"}
    found = await examined(ffprobe(pictures(), SOUND, spatial))
    assert [track.index for track in found.audio] == [1]
    assert found.notes == (
        "audio track 2 (apac) is left out: this ffmpeg does not support its codec",
    )
