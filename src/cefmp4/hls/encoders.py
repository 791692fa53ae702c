"""Chooses encoders by trying them: a list of encoders or devices does not tell whether a session
can be opened. What was found is remembered, a refusal that may pass only for a while."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

import structlog

from cefmp4 import metrics
from cefmp4.errors import ProgramMissingError
from cefmp4.hls.ffmpeg import encoder_trial_command
from cefmp4.media.ffmpeg_run import BRIEFLY_S, run_briefly
from cefmp4.media.stderr import last_line
from cefmp4.model.rendition import Codec, Rendition
from cefmp4.proc import Exit

log = structlog.get_logger()

REMEMBER_BUSY_S = 60.0
_FIRST_WAIT_S = 1.0

_GPU = {Codec.HEVC: "hevc_nvenc", Codec.H264: "h264_nvenc"}
_CPU = {Codec.HEVC: "libx265", Codec.H264: "libx264"}

# What drivers say of their refusal, and a word for it, few enough for a metric: they say it in
# another way in every version. The first match of the first line that matches anything counts: the
# line "No capable devices found" follows a full GPU as well as one without an encoder.
_BUSY = "busy"
_REFUSALS = (
    (re.compile(r"out of memory|OUT_OF_MEMORY|incompatible client key|took longer"), _BUSY),
    (re.compile(r"Cannot load \S+"), "no_driver"),
    (re.compile(r"required nvenc API"), "old_driver"),
    (re.compile(r"No CUDA capable devices|CUDA_ERROR_NO_DEVICE|cu(Init|DeviceGet)"), "no_device"),
    (re.compile(r"unsupported device|not supported|No capable devices found"), "no_encoder"),
    (re.compile(r"Unknown encoder|Unrecognized option|program not found"), "no_program"),
    (re.compile(r"OpenEncodeSessionEx failed|CUDA_ERROR|Max B-frames|B frames as ref"), "other"),
)


class Works(StrEnum):
    YES = "yes"
    NOT_NOW = "not now"  # sessions or memory are taken
    NEVER = "never"  # this machine will not learn it


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    encoder: str
    works: Works
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.encoder}: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One encoder per rendition, and why better ones were passed over."""

    encoders: tuple[str, ...]
    fallbacks: tuple[Tried, ...] = ()

    @property
    def needs_gpu(self) -> bool:
        return any(is_gpu(encoder) for encoder in self.encoders)


def judge_refusal(stderr: str) -> tuple[Works, str]:
    """What an encoder that failed said: what that means, and the line that tells."""
    for line in stderr.splitlines():
        if word := word_for(line, ""):
            return Works.NOT_NOW if word == _BUSY else Works.NEVER, last_line(line)
    return Works.NEVER, last_line(stderr) or "it failed without a word"


def word_for(reason: str, default: str = "other") -> str:
    return next((word for pattern, word in _REFUSALS if pattern.search(reason)), default)


def count_fallback(tried: Tried) -> None:
    metrics.encoder_fallbacks.labels(tried.encoder, word_for(tried.reason)).inc()


def is_gpu(encoder: str) -> bool:
    return encoder.endswith("_nvenc")


@dataclass(slots=True, kw_only=True, eq=False)
class EncoderChooser:
    """`gpu_patience_s`: how long to wait for a GPU that is merely full before the CPU is used."""

    program: str
    use_gpu: bool = True
    gpu_patience_s: float = 15.0
    run: Callable[[Sequence[str]], Awaitable[Exit]] = run_briefly
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    _known: dict[tuple[str, int], tuple[Tried, float]] = field(default_factory=dict, init=False)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    async def choose(self, renditions: Sequence[Rendition], *, use_gpu: bool = True) -> Choice:
        """Raises PermanentError where not even the CPU can encode."""
        use_gpu = use_gpu and self.use_gpu
        found: dict[tuple[Codec, int], str] = {}
        fallbacks: list[Tried] = []
        async with self._lock:  # one probe at a time: probes take sessions, too
            for rendition in renditions:
                kind = rendition.codec, rendition.bit_depth
                if kind not in found:
                    found[kind] = await self._choose_one(rendition, fallbacks, use_gpu)
        encoders = tuple(found[r.codec, r.bit_depth] for r in renditions)
        return Choice(encoders=encoders, fallbacks=tuple(fallbacks))

    def report_failure(self, stderr: str) -> str:
        """A GPU that worked when it was tried failed in the middle of a job: the next choice is the
        CPU, until the GPU may have recovered. Returns why it failed."""
        _, reason = judge_refusal(stderr)
        for kind, (known, _) in list(self._known.items()):
            if is_gpu(known.encoder) and known.works is Works.YES:
                failed = replace(known, works=Works.NOT_NOW, reason=reason)
                self._known[kind] = failed, self.clock()
        return reason

    async def try_gpu(self, rendition: Rendition) -> Tried:
        """Whether a GPU of this machine encodes that: for slots, and for those who ask why not."""
        async with self._lock:
            return await self._try(_GPU[rendition.codec], rendition)

    async def try_cpu(self, rendition: Rendition) -> Tried:
        async with self._lock:
            return await self._try(_CPU[rendition.codec], rendition)

    async def _choose_one(self, rendition: Rendition, fallbacks: list[Tried], use_gpu: bool) -> str:
        if use_gpu:
            tried = await self._try(_GPU[rendition.codec], rendition, self.gpu_patience_s)
            if tried.works is Works.YES:
                return tried.encoder
            fallbacks.append(tried)
            log.info("encoder passed over", encoder=tried.encoder, reason=tried.reason)
        tried = await self._try(_CPU[rendition.codec], rendition)
        if tried.works is not Works.YES:
            raise ProgramMissingError(
                f"{tried.encoder} does not work: {tried.reason}",
                hint="install an ffmpeg with libx264 and libx265",
            )
        return tried.encoder

    async def _try(self, encoder: str, rendition: Rendition, patience_s: float = 0.0) -> Tried:
        """What is known of it, or comes out. A full GPU gets time to finish what it does, once;
        then it counts as full for all."""
        kind = encoder, rendition.bit_depth
        if (known := self._recall(kind)) is not None:
            return known
        command = encoder_trial_command(self.program, rendition, encoder)
        deadline, wait_s = self.clock() + patience_s, _FIRST_WAIT_S
        while True:
            tried = _judge(encoder, await self.run(command))
            self._known[kind] = tried, self.clock()
            left = deadline - self.clock()
            if tried.works is not Works.NOT_NOW or left <= 0:
                return tried
            await self.sleep(min(wait_s, left))
            wait_s *= 2

    def _recall(self, kind: tuple[str, int]) -> Tried | None:
        tried, at = self._known.get(kind, (None, 0.0))
        is_over = self.clock() - at >= REMEMBER_BUSY_S
        return None if tried and tried.works is Works.NOT_NOW and is_over else tried


def _judge(encoder: str, done: Exit) -> Tried:
    """ffmpeg's numbers differ from version to version; only zero means anything."""
    if done.is_ok:
        return Tried(encoder=encoder, works=Works.YES)
    if done.timed_out:
        works, reason = Works.NOT_NOW, f"a few frames took longer than {BRIEFLY_S:.0f} s"
    else:
        works, reason = judge_refusal(done.stderr_tail)
    return Tried(encoder=encoder, works=works, reason=reason)
