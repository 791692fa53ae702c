"""What drivers say, as different versions say it."""

import pytest

from cefmp4.hls.fallbacks import reason_of


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
    assert reason_of(text) == reason
