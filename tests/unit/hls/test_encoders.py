"""What a failed encoder said, and what that means."""

import pytest

from cefmp4.hls.encoders import Verdict, classify


@pytest.mark.parametrize(
    ("stderr", "verdict"),
    [
        ("Cannot load libcuda.so.1", Verdict.PERMANENT),
        ("Cannot load libnvidia-encode.so.1", Verdict.PERMANENT),
        ("No CUDA capable devices found", Verdict.PERMANENT),
        ("dl_fn->cuda_dl->cuInit(0) failed -> CUDA_ERROR_NO_DEVICE: x", Verdict.PERMANENT),
        (
            "OpenEncodeSessionEx failed: unsupported device (2): (no details)\n"
            "No capable devices found",
            Verdict.PERMANENT,
        ),
        (
            "Driver does not support the required nvenc API version. Required: 11.1 Found: 10.0",
            Verdict.PERMANENT,
        ),
        (
            "dl_fn->cuda_dl->cuCtxCreate(&x) failed -> CUDA_ERROR_OUT_OF_MEMORY: out of memory\n"
            "No capable devices found",
            Verdict.TRANSIENT,
        ),
        (
            "OpenEncodeSessionEx failed: out of memory (10): (no details)\n"
            "No capable devices found",
            Verdict.TRANSIENT,
        ),
        ("OpenEncodeSessionEx failed: incompatible client key (21)", Verdict.TRANSIENT),
        ("10 bit encode not supported\nNo capable devices found", Verdict.PERMANENT),
        ("Unknown encoder 'hevc_nvenc'", Verdict.PERMANENT),
        ("", Verdict.PERMANENT),
    ],
)
def test_classes(stderr: str, verdict: Verdict) -> None:
    found, reason = classify(stderr)
    assert found is verdict
    assert reason
