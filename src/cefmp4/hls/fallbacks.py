"""Why an encoder was passed over, in words few enough for a metric: what ffmpeg says differs from
version to version and from driver to driver."""

import re

from cefmp4 import metrics

# The first match counts.
_REASONS = (
    (re.compile(r"out of memory|OUT_OF_MEMORY|incompatible client key|took longer"), "busy"),
    (re.compile(r"Cannot load \S+"), "no_driver"),
    (re.compile(r"required nvenc API"), "old_driver"),
    (re.compile(r"No CUDA capable devices|CUDA_ERROR_NO_DEVICE|cu(Init|DeviceGet)"), "no_device"),
    (re.compile(r"unsupported device|not supported|No capable devices found"), "no_encoder"),
    (re.compile(r"Unknown encoder|Unrecognized option|program not found"), "no_program"),
)


def reason_of(text: str) -> str:
    return next((word for pattern, word in _REASONS if pattern.search(text)), "other")


def count_fallback(encoder: str, text: str) -> None:
    metrics.encoder_fallbacks.labels(encoder, reason_of(text)).inc()
