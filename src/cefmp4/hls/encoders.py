"""Chooses encoders by trying them: a list of encoders or devices does not tell whether a session
can be opened. What was found is remembered, a refusal that may pass only for a while."""

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import structlog

from cefmp4 import proc
from cefmp4.errors import ProgramMissingError
from cefmp4.hls import ffmpeg
from cefmp4.hls.encoder_options import VideoOut
from cefmp4.model.rendition import Codec, Rendition

log = structlog.get_logger()

_TIMEOUT_S = 20.0
_MAX_OUTPUT_BYTES = 64 * 1024
REMEMBER_TRANSIENT_S = 60.0
_FIRST_WAIT_S = 1.0

_GPU = {Codec.HEVC: "hevc_nvenc", Codec.H264: "h264_nvenc"}
_CPU = {Codec.HEVC: "libx265", Codec.H264: "libx264"}


class Verdict(StrEnum):
    WORKS = "works"
    TRANSIENT = "transient"  # sessions or memory are taken now
    PERMANENT = "permanent"  # this machine will not learn it


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    encoder: str
    verdict: Verdict
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One encoder per rendition, and why better ones were passed over."""

    encoders: tuple[str, ...]
    fallbacks: tuple[Tried, ...] = ()

    @property
    def needs_gpu(self) -> bool:
        return any(is_gpu(encoder) for encoder in self.encoders)


# First match of the first line that matches anything: the line "No capable devices found" follows
# a full GPU as well as one without an encoder, and says nothing.
_CLASSES = (
    (re.compile(r"OpenEncodeSessionEx failed: (out of memory|incompatible client key)"), True),
    (re.compile(r"CUDA_ERROR_OUT_OF_MEMORY"), True),
    (re.compile(r"OpenEncodeSessionEx failed"), False),
    (re.compile(r"Cannot load \S+|CUDA_ERROR|No CUDA capable devices|cu(Init|DeviceGet)"), False),
    (re.compile(r"does not support the required nvenc API"), False),
    (re.compile(r"encode not supported|not supported|Unknown encoder|Unrecognized option"), False),
    (re.compile(r"Max B-frames|B frames as references|No capable devices found"), False),
)


def classify(stderr: str) -> tuple[Verdict, str]:
    """What an encoder that failed said: its class, and the line that tells."""
    for line in stderr.splitlines():
        for pattern, is_transient in _CLASSES:
            if pattern.search(line):
                verdict = Verdict.TRANSIENT if is_transient else Verdict.PERMANENT
                return verdict, ffmpeg.last_line(line)
    return Verdict.PERMANENT, ffmpeg.last_line(stderr) or "it failed without a word"


def is_gpu(encoder: str) -> bool:
    return encoder.endswith("_nvenc")


class EncoderChooser:
    """`gpu_patience_s`: how long to wait for a GPU that is merely full before the CPU is used."""

    def __init__(
        self,
        *,
        program: str,
        use_gpu: bool = True,
        gpu_patience_s: float = 15.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._program = program
        self._use_gpu = use_gpu
        self._gpu_patience_s = gpu_patience_s
        self._clock = clock
        self._known: dict[tuple[str, int], tuple[Tried, float]] = {}
        self._lock = asyncio.Lock()

    async def choose(self, renditions: Sequence[Rendition], *, use_gpu: bool = True) -> Choice:
        """Raises PermanentError where not even the CPU can encode."""
        use_gpu = use_gpu and self._use_gpu
        found: dict[tuple[Codec, int], str] = {}
        fallbacks: list[Tried] = []
        async with self._lock:  # one probe at a time: probes take sessions, too
            for rendition in renditions:
                kind = rendition.codec, rendition.bit_depth
                if kind not in found:
                    found[kind] = await self._choose_one(rendition, fallbacks, use_gpu)
        encoders = tuple(found[r.codec, r.bit_depth] for r in renditions)
        return Choice(encoders=encoders, fallbacks=tuple(fallbacks))

    def report_failure(self, stderr: str, now: float | None = None) -> Tried:
        """A GPU that worked in the probe failed in the middle of a job: the next choice is the
        CPU, until the GPU may have recovered."""
        verdict, reason = classify(stderr)
        tried = Tried(encoder="nvenc", verdict=verdict, reason=reason)
        at = self._clock() if now is None else now
        for (encoder, depth), (known, _) in list(self._known.items()):
            if is_gpu(encoder) and known.verdict is Verdict.WORKS:
                failed = replace(known, verdict=Verdict.TRANSIENT, reason=reason)
                self._known[encoder, depth] = failed, at
        return tried

    async def try_gpu(self, rendition: Rendition) -> Tried:
        """Whether a GPU of this machine encodes that: for slots, and for those who ask why not."""
        async with self._lock:
            return await self._try(_GPU[rendition.codec], rendition)

    async def try_cpu(self, rendition: Rendition) -> Tried:
        async with self._lock:
            return await self._try(_CPU[rendition.codec], rendition)

    async def _choose_one(self, rendition: Rendition, fallbacks: list[Tried], use_gpu: bool) -> str:
        if use_gpu:
            tried = await self._try_patiently(_GPU[rendition.codec], rendition)
            if tried.verdict is Verdict.WORKS:
                return tried.encoder
            fallbacks.append(tried)
            log.info("encoder passed over", encoder=tried.encoder, reason=tried.reason)
        tried = await self._try(_CPU[rendition.codec], rendition)
        if tried.verdict is not Verdict.WORKS:
            raise ProgramMissingError(
                f"{tried.encoder} does not work: {tried.reason}",
                hint="install an ffmpeg with libx264 and libx265",
            )
        return tried.encoder

    async def _try_patiently(self, encoder: str, rendition: Rendition) -> Tried:
        """A full GPU gets time to finish what it does, once; then it counts as full for all."""
        known = self._recall(encoder, rendition.bit_depth)
        if known is not None:
            return known
        deadline, wait_s = self._clock() + self._gpu_patience_s, _FIRST_WAIT_S
        while True:
            tried = await self._try(encoder, rendition)
            left = deadline - self._clock()
            if tried.verdict is not Verdict.TRANSIENT or left <= 0:
                return tried
            await asyncio.sleep(min(wait_s, left))
            wait_s *= 2
            self._known.pop((encoder, rendition.bit_depth), None)

    async def _try(self, encoder: str, rendition: Rendition) -> Tried:
        known = self._recall(encoder, rendition.bit_depth)
        if known is not None:
            return known
        out = VideoOut(fd=-1, encoder=encoder, codec=rendition.codec, rendition=rendition)
        done = await proc.run(
            ffmpeg.encoder_probe_command(self._program, out),
            timeout_s=_TIMEOUT_S,
            max_output_bytes=_MAX_OUTPUT_BYTES,
        )
        tried = _judge(encoder, done)
        self._known[encoder, rendition.bit_depth] = tried, self._clock()
        return tried

    def _recall(self, encoder: str, bit_depth: int) -> Tried | None:
        known = self._known.get((encoder, bit_depth))
        if known is None:
            return None
        tried, at = known
        is_over = self._clock() - at >= REMEMBER_TRANSIENT_S
        return None if tried.verdict is Verdict.TRANSIENT and is_over else tried


def _judge(encoder: str, done: proc.Finished) -> Tried:
    """ffmpeg's numbers differ from version to version; only zero means anything."""
    if done.is_ok:
        return Tried(encoder=encoder, verdict=Verdict.WORKS)
    if done.timed_out:
        reason = f"a few frames took longer than {_TIMEOUT_S:.0f} s"
        return Tried(encoder=encoder, verdict=Verdict.TRANSIENT, reason=reason)
    verdict, reason = classify(done.stderr_tail)
    return Tried(encoder=encoder, verdict=verdict, reason=reason)
