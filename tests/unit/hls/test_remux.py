"""When a source may be copied, and what speaks against it."""

from contextlib import nullcontext
from dataclasses import replace
from fractions import Fraction

import pytest

from cefmp4.hls import remux
from cefmp4.hls.examined import AudioTrack, ExaminedVideo, VideoTrack
from cefmp4.hls.fragments import Fragment, Init
from cefmp4.media.fragment_boxes import Sample, TrackHeader
from cefmp4.model.rendition import Codec, CodecChoice, Picture

VIDEO = VideoTrack(
    index=0,
    codec="h264",
    profile="High",
    pix_fmt="yuv420p",
    width=1920,
    height=1080,
    sar=Fraction(1),
    rotation=0,
    is_interlaced=False,
    color=("", "", ""),
    start_s=0.0,
    duration_s=10.0,
    picture=Picture(width=1920, height=1080, frame_rate=Fraction(30)),
)


def reasons(choice: CodecChoice = CodecChoice.BOTH, **changed: object) -> tuple[str, ...]:
    video = replace(VIDEO, **changed)  # type: ignore[arg-type]  # of one test
    source = ExaminedVideo(video=video, audio=(), duration_s=10.0)
    return remux.reasons_against(source, choice)


def test_a_picture_above_the_highest_rung_is_not_copied() -> None:
    """Counted on the short side, as the rungs are: a wide picture of 1080 lines is one of 1080."""
    wide = replace(VIDEO, width=2560)
    source = ExaminedVideo(video=wide, audio=(), duration_s=10.0)
    assert remux.reasons_against(source, CodecChoice.BOTH) == ()
    assert remux.reasons_against(source, CodecChoice.BOTH, 720) == ("it is larger than 720p",)


def packets(keys: set[int], count: int = 300, rate: int = 30) -> list[tuple[float, str]]:
    return [(n / rate, "K_" if n in keys else "__") for n in range(count)]


def test_what_fits() -> None:
    assert reasons() == ()
    assert reasons(CodecChoice.HEVC, codec="hevc", profile="Main") == ()


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"codec": "av1"}, "its codec is av1"),
        ({"codec": "hevc", "profile": "Main"}, "h264 is asked for as well"),
        ({"profile": "High 10"}, "its profile is High 10"),
        ({"pix_fmt": "yuv422p"}, "its pixels are yuv422p"),
        ({"is_interlaced": True}, "it is interlaced"),
        ({"rotation": 90}, "it is rotated by 90 degrees"),
        ({"is_mirrored": True}, "it is mirrored"),
        ({"is_fast": True}, "it has more than 60 frames per second"),
        ({"sar": Fraction(4, 3)}, "its pixels are not square (4/3)"),
        ({"width": 1919}, "a side of it is odd"),
        ({"width": 3840, "height": 2160}, "it is larger than 1080p"),
        ({"start_s": 0.5}, "its video starts 0.50 s late"),
    ],
)
def test_what_does_not(changed: dict[str, object], reason: str) -> None:
    assert reasons(**changed) == (reason,)  # type: ignore[arg-type]  # of one test


def test_key_frames_in_time() -> None:
    assert remux.reasons_in_head(packets({0, 60, 120, 180, 240})) == ()


def test_key_frames_too_rare() -> None:
    assert "10.0 s apart" in remux.reasons_in_head(packets({0}))[0]


def test_no_key_frame_first() -> None:
    assert "does not begin" in remux.reasons_in_head(packets({30, 90, 150, 210, 270}))[0]
    assert remux.reasons_in_head([])


def test_an_edit_list() -> None:
    cut = [(-0.1, "KD"), (0.0, "K_"), (0.1, "__")]
    assert remux.reasons_in_head(cut) == ("an edit list cuts its start",)
    assert remux.reasons_in_tail([(9.9, "_D")]) == ("an edit list cuts its end",)
    assert remux.reasons_in_tail([(9.9, "__")]) == ()


def test_pictures_that_lead_a_key_frame() -> None:
    open_group = [(0.0, "K_"), (0.1, "__"), (0.5, "K_"), (0.4, "__"), (0.6, "__")]
    assert "shown before" in remux.reasons_in_head(open_group)[0]


def key_frame(*units: bytes) -> Fragment:
    picture = b"".join(len(unit).to_bytes(4, "big") + unit for unit in units)
    header = TrackHeader(kind="video", codec="", timescale=30000, nal_length=4)
    return Fragment(
        init=Init(data=b"", header=header),
        data=picture,
        start=0,
        duration=1000,
        samples=[Sample(offset=0, size=len(picture), duration=1000, cto=0, is_sync=True)],
    )


@pytest.mark.parametrize(
    ("codec", "head", "refused"),
    [
        (Codec.H264, b"\x65", ""),
        (Codec.H264, b"\x41", "a key frame of NAL type 1"),
        (Codec.HEVC, bytes([19 << 1, 1]), ""),
        (Codec.HEVC, bytes([21 << 1, 1]), "a key frame of NAL type 21"),
        (Codec.H264, b"\x06", "a key frame of NAL type None"),
    ],
)
def test_the_first_slice_is_found_behind_other_units(
    codec: Codec, head: bytes, refused: str
) -> None:
    other = b"\x06" if codec is Codec.H264 else bytes([39 << 1, 1])
    fragment, watch = key_frame(other + b"\1" * 30, head + b"\1" * 9), remux.CopyWatch(codec)
    with pytest.raises(remux.CopyRefusedError, match=refused) if refused else nullcontext():
        watch.check(fragment)
    assert watch.damaged == 0


def test_damage_shows_without_decoding() -> None:
    watch = remux.CopyWatch(Codec.H264)
    watch.check(key_frame(b"\x65" + bytes(9)))
    assert watch.damaged == 1
    fragment = key_frame(b"\x65\1\1\1")
    with pytest.raises(remux.CopyRefusedError, match="damaged"):
        watch.check(replace(fragment, data=b"\xff" * 8))


ESCAPED = b"\0\0\3" * 4


@pytest.mark.parametrize(
    ("content", "damaged"),
    [
        (b"\1\0\0\1\0\0\3\1" * 9, 0),
        (b"\1" * 9 + b"\0\0\0", 1),
        (b"\1" + ESCAPED + b"\1", 1),
        (b"\1" + ESCAPED, 0),
        (b"\1" + ESCAPED * 9 + b"\0", 0),
        (b"\1" + ESCAPED + b"\0\0\0", 1),
        (b"\1\0\0\0\1" + ESCAPED, 1),
    ],
)
def test_zeros_that_follow_each_other_are_damage_but_for_padding(
    content: bytes, damaged: int
) -> None:
    watch = remux.CopyWatch(Codec.H264)
    watch.check(key_frame(b"\x65" + content, b"\x65" + b"\1" * 20))
    assert watch.damaged == damaged


def test_which_audio_is_copied() -> None:
    track = AudioTrack(
        index=1, codec="aac", profile="LC", channels=2, language="", start_s=0.0, duration_s=9.0
    )
    assert remux.may_copy_audio(track)
    assert not remux.may_copy_audio(replace(track, channels=6))
    assert not remux.may_copy_audio(replace(track, codec="opus"))
    assert not remux.may_copy_audio(replace(track, profile="HE-AAC"))
    assert not remux.may_copy_audio(replace(track, start_s=0.1))
    assert not remux.may_copy_audio(replace(track, has_header=False))
