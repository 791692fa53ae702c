"""Whether GPU slots are worth having on this machine. A job with a slot for a GPU that does not
work would encode on the CPU, beside the jobs that have the CPU's slots."""

from collections.abc import Mapping
from fractions import Fraction

import structlog

from cefmp4.errors import ProgramMissingError
from cefmp4.hls.encoders import EncoderChooser, Tried, Works, count_fallback
from cefmp4.model.job import SlotKind
from cefmp4.model.rendition import CodecChoice, Picture, Rendition, ladder

log = structlog.get_logger()

_USUAL = Picture(width=1280, height=720, frame_rate=Fraction(30))


async def usable_slots(
    slots: Mapping[SlotKind, int], chooser: EncoderChooser, codecs: CodecChoice, *, use_gpu: bool
) -> dict[SlotKind, int]:
    """`slots` without those of a GPU that encodes none of `codecs`. Asked once, at the start."""
    usable = dict(slots)
    if usable.get(SlotKind.GPU):
        reason = await _reason_against(chooser, codecs) if use_gpu else "HLS_GPU=off"
        if reason:
            usable[SlotKind.GPU] = 0
            log.info("no GPU slots", reason=reason)
    if not any(usable.values()):
        log.warning("no slots at all: only recordings that can be copied get HLS from this worker")
    return usable


async def _reason_against(chooser: EncoderChooser, codecs: CodecChoice) -> str:
    """Empty where the GPU works, or is merely full: it may be free when a job comes."""
    reasons = []
    for rendition in {rendition.codec: rendition for rendition in ladder(_USUAL, codecs)}.values():
        tried = await _try(chooser, rendition)
        if tried.works is not Works.NEVER:
            return ""
        reasons.append(str(tried))
    return "; ".join(reasons)


async def _try(chooser: EncoderChooser, rendition: Rendition) -> Tried:
    try:
        tried = await chooser.try_gpu(rendition)
    except ProgramMissingError as error:  # uploads go on without it; each job will say so
        tried = Tried(encoder="ffmpeg", works=Works.NEVER, reason=str(error))
    if tried.works is not Works.YES:
        count_fallback(tried)
    return tried
