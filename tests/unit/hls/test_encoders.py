"""Encoders are chosen by trying them. What they say here, real ffmpegs and drivers say."""

from fractions import Fraction

import pytest
from tests.fake_encoders import FULL, NO_DRIVER, SLOW, FakeEncoders

from cefmp4.errors import ProgramMissingError
from cefmp4.hls.encoders import (
    REMEMBER_BUSY_S,
    Works,
    judge_refusal,
    word_for,
)
from cefmp4.model.rendition import CodecChoice, Picture, ladder


@pytest.mark.parametrize(
    ("stderr", "verdict"),
    [
        ("Cannot load libcuda.so.1", Works.NEVER),
        ("Cannot load libnvidia-encode.so.1", Works.NEVER),
        ("No CUDA capable devices found", Works.NEVER),
        ("dl_fn->cuda_dl->cuInit(0) failed -> CUDA_ERROR_NO_DEVICE: x", Works.NEVER),
        (
            "OpenEncodeSessionEx failed: unsupported device (2): (no details)\n"
            "No capable devices found",
            Works.NEVER,
        ),
        (
            "Driver does not support the required nvenc API version. Required: 11.1 Found: 10.0",
            Works.NEVER,
        ),
        (
            "dl_fn->cuda_dl->cuCtxCreate(&x) failed -> CUDA_ERROR_OUT_OF_MEMORY: out of memory\n"
            "No capable devices found",
            Works.NOT_NOW,
        ),
        (
            "OpenEncodeSessionEx failed: out of memory (10): (no details)\n"
            "No capable devices found",
            Works.NOT_NOW,
        ),
        ("OpenEncodeSessionEx failed: incompatible client key (21)", Works.NOT_NOW),
        ("10 bit encode not supported\nNo capable devices found", Works.NEVER),
        ("Unknown encoder 'hevc_nvenc'", Works.NEVER),
        ("", Works.NEVER),
    ],
)
def test_classes(stderr: str, verdict: Works) -> None:
    found, reason = judge_refusal(stderr)
    assert found is verdict
    assert reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("OpenEncodeSessionEx failed: out of memory (10): (no details)", "busy"),
        ("a few frames took longer than 20 s", "busy"),
        ("Cannot load libnvidia-encode.so.1", "no_driver"),
        ("Driver does not support the required nvenc API version. Required: 13.0", "old_driver"),
        ("cuInit(0) failed -> CUDA_ERROR_NO_DEVICE: no CUDA-capable device", "no_device"),
        ("OpenEncodeSessionEx failed: unsupported device (2): (no details)", "no_encoder"),
        ("Unknown encoder 'hevc_nvenc'", "no_program"),
        ("it failed without a word", "other"),
    ],
)
def test_a_few_words_for_all_of_them(text: str, reason: str) -> None:
    assert word_for(text) == reason


PICTURE = Picture(width=1280, height=720, frame_rate=Fraction(30))
DEEP = Picture(width=1280, height=720, frame_rate=Fraction(30), bit_depth=10)
BOTH = ladder(PICTURE, CodecChoice.BOTH)
HEVC = ladder(PICTURE, CodecChoice.HEVC)


async def test_a_gpu_that_works_is_taken_for_all_of_it() -> None:
    machine = FakeEncoders()
    choice = await machine.chooser().choose(BOTH)
    assert choice.encoders == ("hevc_nvenc",) * (len(BOTH) - 1) + ("h264_nvenc",)
    assert (choice.needs_gpu, choice.fallbacks) == (True, ())
    assert machine.tried == ["hevc_nvenc", "h264_nvenc"]  # once, however many rungs


async def test_without_a_driver_the_cpu_encodes_and_the_reason_is_told() -> None:
    machine = FakeEncoders(hevc_nvenc=NO_DRIVER, h264_nvenc=NO_DRIVER)
    chooser = machine.chooser()
    choice = await chooser.choose(BOTH)
    assert set(choice.encoders) == {"libx265", "libx264"}
    assert not choice.needs_gpu
    assert [(tried.encoder, tried.works, tried.reason) for tried in choice.fallbacks] == [
        ("hevc_nvenc", Works.NEVER, NO_DRIVER),
        ("h264_nvenc", Works.NEVER, NO_DRIVER),
    ]
    machine.now += 1e6
    assert await chooser.choose(BOTH) == choice
    assert len(machine.tried) == 4  # it will not learn it


async def test_a_gpu_may_encode_one_of_the_codecs_alone() -> None:
    machine = FakeEncoders(hevc_nvenc="OpenEncodeSessionEx failed: unsupported device (2)")
    choice = await machine.chooser().choose(BOTH)
    assert choice.encoders == ("libx265",) * (len(BOTH) - 1) + ("h264_nvenc",)
    assert choice.needs_gpu


async def test_a_full_gpu_gets_time_once_for_all() -> None:
    machine = FakeEncoders(hevc_nvenc=FULL)
    chooser = machine.chooser(gpu_patience_s=15)
    choice = await chooser.choose(HEVC)
    assert choice.encoders == ("libx265",) * len(HEVC)
    assert choice.fallbacks[0].works is Works.NOT_NOW
    assert machine.waits == [1, 2, 4, 8]
    assert await chooser.choose(HEVC) == choice
    assert sum(machine.waits) == 15


async def test_a_gpu_that_gets_free_meanwhile_is_taken() -> None:
    machine = FakeEncoders(hevc_nvenc=FULL, free_at=3)
    choice = await machine.chooser().choose(HEVC)
    assert choice.encoders == ("hevc_nvenc",) * len(HEVC)
    assert machine.waits == [1, 2]


async def test_a_full_gpu_is_tried_again_after_a_while() -> None:
    machine = FakeEncoders(hevc_nvenc=FULL)
    chooser = machine.chooser(gpu_patience_s=0)
    assert not (await chooser.choose(HEVC)).needs_gpu
    machine.refusals.clear()
    machine.now += REMEMBER_BUSY_S - 1
    assert not (await chooser.choose(HEVC)).needs_gpu
    machine.now += 1
    assert (await chooser.choose(HEVC)).needs_gpu


async def test_a_driver_that_hangs_counts_as_busy() -> None:
    machine = FakeEncoders(hevc_nvenc=SLOW)
    choice = await machine.chooser(gpu_patience_s=0).choose(HEVC)
    assert choice.fallbacks[0].works is Works.NOT_NOW
    assert word_for(choice.fallbacks[0].reason) == "busy"


async def test_a_gpu_that_failed_in_the_middle_rests() -> None:
    machine = FakeEncoders()
    chooser = machine.chooser(gpu_patience_s=0)
    assert (await chooser.choose(HEVC)).needs_gpu
    assert chooser.report_failure("[hevc_nvenc @ 0x1] CUDA_ERROR_ILLEGAL_ADDRESS") == (
        "CUDA_ERROR_ILLEGAL_ADDRESS"
    )
    choice = await chooser.choose(HEVC)
    assert choice.encoders == ("libx265",) * len(HEVC)
    assert choice.fallbacks[0].reason == "CUDA_ERROR_ILLEGAL_ADDRESS"
    machine.now += REMEMBER_BUSY_S
    assert (await chooser.choose(HEVC)).needs_gpu


@pytest.mark.parametrize(("of_all", "of_this"), [(False, True), (True, False)])
async def test_no_gpu_is_touched_by_who_may_not(of_all: bool, of_this: bool) -> None:
    machine = FakeEncoders()
    choice = await machine.chooser(use_gpu=of_all).choose(BOTH, use_gpu=of_this)
    assert set(choice.encoders) == {"libx265", "libx264"}
    assert choice.fallbacks == ()
    assert machine.tried == ["libx265", "libx264"]


async def test_ten_bits_are_tried_for_themselves() -> None:
    machine = FakeEncoders()
    chooser = machine.chooser()
    await chooser.choose(HEVC)
    await chooser.choose(ladder(DEEP, CodecChoice.HEVC))
    assert machine.tried == ["hevc_nvenc", "hevc_nvenc"]


async def test_an_ffmpeg_that_encodes_nothing_is_no_fault_of_the_recording() -> None:
    machine = FakeEncoders(hevc_nvenc=NO_DRIVER, libx265="Unknown encoder 'libx265'")
    with pytest.raises(ProgramMissingError, match="libx265 does not work: Unknown encoder"):
        await machine.chooser().choose(HEVC)
