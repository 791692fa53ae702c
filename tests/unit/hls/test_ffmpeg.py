"""The command lines: what ffmpeg may read, what it is told to make."""

import re
from dataclasses import replace
from fractions import Fraction

import pytest

from cefmp4.hls import ffmpeg, filters
from cefmp4.hls.examined import AudioTrack, VideoTrack
from cefmp4.hls.ffmpeg import encoder_options
from cefmp4.hls.filters import Encoding
from cefmp4.hls.thumbnails import plan_sprite
from cefmp4.media.source import MediaSource
from cefmp4.model.rendition import Picture, ladder

LOCAL = MediaSource(fd=5)
REMOTE = MediaSource(url="https://s3.example/clip?X-Amz-Signature=1")
MEANING = "setparams=color_primaries=bt709:color_trc=bt709:colorspace=bt709,"
PICTURE = Picture(width=1920, height=1080, frame_rate=Fraction(30000, 1001))
VIDEO = VideoTrack(
    index=0,
    codec="hevc",
    profile="Main",
    pix_fmt="yuv420p",
    width=1920,
    height=1080,
    sar=Fraction(1),
    rotation=0,
    is_interlaced=False,
    color=("", "", ""),
    start_s=0.0,
    duration_s=9.0,
    picture=PICTURE,
)
SOUND = AudioTrack(
    index=1, codec="aac", profile="LC", channels=2, language="", start_s=0.0, duration_s=9.0
)


def encodings(picture: Picture = PICTURE) -> list[Encoding]:
    return [(rendition, "libx265") for rendition in ladder(picture)]


def after(argv: list[str], option: str) -> str:
    return argv[argv.index(option) + 1]


def test_a_local_input_sees_files_and_nothing_else() -> None:
    argv = ffmpeg.reading("ffmpeg", LOCAL)
    assert "-nostdin" in argv
    assert after(argv, "-protocol_whitelist") == "file"
    formats = after(argv, "-format_whitelist").split(",")
    assert not {"hls", "concat", "dash", "sdp", "lavfi", "image2"} & set(formats)
    assert argv.index("-format_whitelist") < argv.index("-i")
    assert "-reconnect" not in argv


def test_a_remote_input_is_resumed_and_sees_no_files() -> None:
    argv = ffmpeg.reading("ffmpeg", REMOTE)
    assert after(argv, "-protocol_whitelist") == "http,tcp"
    assert after(argv, "-reconnect_on_network_error") == "1"


def test_one_decoder_feeds_all_renditions() -> None:
    graph = filters.filter_graph(VIDEO, encodings(), None)
    assert graph.startswith(f"[0:0]{MEANING}fps=30000/1001:start_time=0,split=4[s0][s1][s2][s3];")
    assert "[s2]scale=960:540:flags=bicubic,setsar=1,format=yuv420p[v2]" in graph
    assert after(ffmpeg.reading("ffmpeg", LOCAL, graph), "-filter_complex") == graph
    assert after(ffmpeg.video("[v2]", ()), "-map") == "[v2]"


def test_what_two_encoders_take_alike_is_scaled_once() -> None:
    graph = filters.filter_graph(VIDEO, encodings(), None)
    assert "scale=1280:720:flags=bicubic,setsar=1,format=yuv420p,split=2[v1][v4];" in graph
    assert graph.count("scale=1280:720") == 1


@pytest.mark.parametrize(
    ("width", "height", "start"),
    [
        (
            3840,
            2160,
            f"[0:0]{MEANING}fps=30000/1001:start_time=0,scale=1920:1080:flags=bicubic,split=4",
        ),
        (1920, 1088, f"[0:0]{MEANING}fps=30000/1001:start_time=0,split=4"),
    ],
)
def test_only_a_far_larger_picture_is_brought_down_before_the_split(
    width: int, height: int, start: str
) -> None:
    source = replace(VIDEO, width=width, height=height)
    graph = filters.filter_graph(source, encodings(), None)
    assert graph.startswith(start)


def test_groups_are_closed_and_of_one_length() -> None:
    rung = ladder(PICTURE)[0]
    x265 = after(encoder_options(rung, "libx265"), "-x265-params")
    assert "keyint=60:min-keyint=60:scenecut=0:open-gop=0" in x265
    nvenc = encoder_options(rung, "hevc_nvenc")
    assert (after(nvenc, "-g"), after(nvenc, "-strict_gop"), after(nvenc, "-no-scenecut")) == (
        "60",
        "1",
        "1",
    )


def test_hevc_is_tagged_for_apple() -> None:
    for encoder in ("libx265", "hevc_nvenc"):
        assert after(encoder_options(ladder(PICTURE)[0], encoder), "-tag:v") == ("hvc1")


def test_hdr10_travels_along() -> None:
    hdr = Picture(width=1280, height=720, frame_rate=Fraction(24), bit_depth=10, hdr="PQ")
    colors, light = ("bt2020", "smpte2084", ""), ("master-display=G(1,2)", "max-cll=9,8")
    first, *_, h264 = ladder(hdr)
    argv = encoder_options(first, "libx265", colors, light)
    assert "master-display=G(1,2):max-cll=9,8" in after(argv, "-x265-params")
    assert after(argv, "-color_trc") == "smpte2084"
    source = replace(VIDEO, picture=hdr)
    graph = filters.filter_graph(source, [(first, "libx265"), (h264, "libx264")], None)
    hevc_chain, h264_chain = graph.split(";")[1:]
    assert "tonemap" not in hevc_chain
    assert hevc_chain.endswith("format=yuv420p10le[v0]")
    assert "tonemap" in h264_chain
    assert h264_chain.endswith("format=yuv420p[v1]")


def test_interlaced_input_is_deinterlaced_once() -> None:
    source = replace(VIDEO, is_interlaced=True)
    graph = filters.filter_graph(source, encodings(), None)
    assert graph.count("bwdif") == 1


def test_a_copy_decodes_nothing() -> None:
    argv = [*ffmpeg.copied_video(VIDEO), *ffmpeg.audio(SOUND, 9.0, may_copy=True)]
    assert "-filter_complex" not in argv
    assert after(argv, "-c:v") == "copy"
    assert after(argv, "-c:a") == "copy"
    assert after(argv, "-tag:v") == "hvc1"


def test_images_are_two_more_branches() -> None:
    plan = plan_sprite(PICTURE, 600)
    graph = filters.filter_graph(VIDEO, encodings()[:1], plan)
    assert "split=3" in graph
    assert re.search(
        r"select=not\(mod\(n\\,90\)\),"
        r"scale=160:90:flags=area:out_color_matrix=bt601,setsar=1,tile=16x13",
        graph,
    )


def test_an_encoder_is_tried_with_the_options_of_the_job() -> None:
    ten_bits = Picture(width=1920, height=1080, frame_rate=Fraction(30), bit_depth=10)
    rendition = ladder(ten_bits)[0]
    argv = ffmpeg.encoder_trial_command("ffmpeg", rendition, "hevc_nvenc")
    assert after(argv, "-pix_fmt") == "p010le"
    options = encoder_options(rendition, "hevc_nvenc")
    assert argv[argv.index("-c:v") : argv.index("-c:v") + len(options)] == options
