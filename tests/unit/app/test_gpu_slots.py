"""Slots of a GPU that does not encode are no slots; an ffmpeg of our own says what it does."""

from pathlib import Path

import pytest

from cefmp4.app.gpu_slots import usable_slots
from cefmp4.hls.encoders import EncoderChooser
from cefmp4.model.job import SlotKind
from cefmp4.model.rendition import CodecChoice

BOTH = {SlotKind.GPU: 2, SlotKind.CPU: 1}
NO_GPU = {SlotKind.GPU: 0, SlotKind.CPU: 1}
MISSING = "echo 'Cannot load libcuda.so.1' >&2; exit 187"
FULL = "echo 'OpenEncodeSessionEx failed: out of memory (10)' >&2; exit 187"
H264_ALONE = f'case "$*" in *h264_nvenc*) exit 0;; esac; {MISSING}'


def ffmpeg(folder: Path, does: str) -> str:
    program = folder / "ffmpeg"
    program.write_text(f"#!/bin/sh\necho asked >> {folder}/asked\n{does}\n")
    program.chmod(0o700)
    return str(program)


def asked(folder: Path) -> int:
    log = folder / "asked"
    return len(log.read_text().split()) if log.exists() else 0


@pytest.mark.parametrize(
    ("does", "codecs", "expected"),
    [
        ("exit 0", CodecChoice.BOTH, BOTH),
        (MISSING, CodecChoice.BOTH, NO_GPU),
        (FULL, CodecChoice.BOTH, BOTH),
        (H264_ALONE, CodecChoice.BOTH, BOTH),
        (H264_ALONE, CodecChoice.HEVC, NO_GPU),
    ],
)
async def test_the_gpu_is_tried(
    tmp_path: Path, does: str, codecs: CodecChoice, expected: dict[SlotKind, int]
) -> None:
    chooser = EncoderChooser(program=ffmpeg(tmp_path, does))
    assert await usable_slots(BOTH, chooser, codecs, use_gpu=True) == expected


async def test_it_is_asked_only_where_the_answer_matters(tmp_path: Path) -> None:
    chooser = EncoderChooser(program=ffmpeg(tmp_path, "exit 0"))
    assert await usable_slots(BOTH, chooser, CodecChoice.BOTH, use_gpu=False) == NO_GPU
    assert await usable_slots(NO_GPU, chooser, CodecChoice.BOTH, use_gpu=True) == NO_GPU
    assert asked(tmp_path) == 0


async def test_a_missing_program_takes_no_worker_down(tmp_path: Path) -> None:
    chooser = EncoderChooser(program=str(tmp_path / "none"))
    assert await usable_slots(BOTH, chooser, CodecChoice.BOTH, use_gpu=True) == NO_GPU
