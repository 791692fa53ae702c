"""Slots of a GPU that does not encode are no slots."""

from pathlib import Path

import pytest
from tests.fake_encoders import FULL, NO_DRIVER, FakeEncoders

from cefmp4.app.gpu_slots import usable_slots
from cefmp4.hls.encoders import EncoderChooser
from cefmp4.model.job import SlotKind
from cefmp4.model.rendition import CodecChoice

BOTH = {SlotKind.GPU: 2, SlotKind.CPU: 1}
NO_GPU = {SlotKind.GPU: 0, SlotKind.CPU: 1}
WORKING = FakeEncoders()
MISSING = FakeEncoders(hevc_nvenc=NO_DRIVER, h264_nvenc=NO_DRIVER)
FILLED = FakeEncoders(hevc_nvenc=FULL, h264_nvenc=FULL)
H264_ALONE = FakeEncoders(hevc_nvenc=NO_DRIVER)


@pytest.mark.parametrize(
    ("machine", "codecs", "expected"),
    [
        (WORKING, CodecChoice.BOTH, BOTH),
        (MISSING, CodecChoice.BOTH, NO_GPU),
        (FILLED, CodecChoice.BOTH, BOTH),
        (H264_ALONE, CodecChoice.BOTH, BOTH),
        (H264_ALONE, CodecChoice.HEVC, NO_GPU),
    ],
)
async def test_the_gpu_is_tried(
    machine: FakeEncoders, codecs: CodecChoice, expected: dict[SlotKind, int]
) -> None:
    assert await usable_slots(BOTH, machine.chooser(), codecs, use_gpu=True) == expected


async def test_it_is_asked_only_where_the_answer_matters() -> None:
    machine = FakeEncoders()
    chooser = machine.chooser()
    assert await usable_slots(BOTH, chooser, CodecChoice.BOTH, use_gpu=False) == NO_GPU
    assert await usable_slots(NO_GPU, chooser, CodecChoice.BOTH, use_gpu=True) == NO_GPU
    assert machine.tried == []


async def test_a_missing_program_takes_no_worker_down(tmp_path: Path) -> None:
    chooser = EncoderChooser(program=str(tmp_path / "none"))
    assert await usable_slots(BOTH, chooser, CodecChoice.BOTH, use_gpu=True) == NO_GPU
