"""The programs: which versions are there, and which encoders really encode on this machine."""

import asyncio
import re
from fractions import Fraction
from pathlib import Path

from cefmp4.config.settings import Settings
from cefmp4.config.worker import GpuUse
from cefmp4.errors import ProgramMissingError
from cefmp4.hls.encoders import EncoderChooser, Tried, Works, is_gpu
from cefmp4.media.ffmpeg_run import run_briefly
from cefmp4.media.stderr import last_line
from cefmp4.model.diagnosis import Diagnosis, fail, ok, warn
from cefmp4.model.rendition import Picture, Rendition, ladder

_OLDEST_MAJOR = 5
_NVIDIA_DEVICE = Path("/dev/nvidiactl")
_PLAIN = Picture(width=1280, height=720, frame_rate=Fraction(30))
_HDR = Picture(width=1280, height=720, frame_rate=Fraction(30), bit_depth=10, hdr="HLG")


async def examine_media(settings: Settings) -> list[Diagnosis]:
    versions = await asyncio.gather(
        _program("ffprobe", settings.ffprobe_path, settings.ffprobe_memory_bytes),
        _program("ffmpeg", settings.ffmpeg_path, None),
    )
    return [*versions, *await _encoders(settings)]


async def _encoders(settings: Settings) -> list[Diagnosis]:
    """What jobs would encode with, tried as they try it: with their own options."""
    use_gpu, has_gpu = settings.hls_gpu is GpuUse.AUTO, _has_gpu()
    chooser = EncoderChooser(program=settings.ffmpeg_path)
    kinds = {
        (rendition.codec, rendition.bit_depth): rendition
        for picture in (_PLAIN, _HDR)
        for rendition in ladder(picture, settings.hls_codec)
    }
    found = []
    try:
        for rendition in kinds.values():
            if use_gpu:
                found.append(judge_encoder(await chooser.try_gpu(rendition), rendition, has_gpu))
            found.append(judge_encoder(await chooser.try_cpu(rendition), rendition, has_gpu))
    except ProgramMissingError:
        pass  # told by its version
    return found


async def _program(subject: str, program: str, memory_bytes: int | None) -> Diagnosis:
    advice = f"set {subject.upper()}_PATH or install ffmpeg"
    try:
        done = await run_briefly([program, "-version"], memory_bytes=memory_bytes)
    except ProgramMissingError as error:
        # Uploads work without either; what is lost is the description or the jobs.
        return warn(subject, str(error), advice)
    if not done.is_ok:
        if memory_bytes and "failed to map" in done.stderr_tail:
            reason = "it cannot start in the memory it gets"
            return fail(subject, reason, "raise FFPROBE_MEMORY_BYTES")
        reason = last_line(done.stderr_tail) or f"exit code {done.returncode}"
        return warn(subject, f"it does not run: {reason}", advice)
    return judge_version(subject, done.stdout.decode("utf-8", "replace"))


def judge_version(subject: str, output: str) -> Diagnosis:
    match = re.search(r"version (\S+)", output)
    version = match[1] if match else "unknown"
    major = re.match(r"n?(\d+)\.", version)
    if major and int(major[1]) < _OLDEST_MAJOR:
        return warn(subject, f"version {version}", f"use version {_OLDEST_MAJOR} or newer")
    return ok(subject, f"version {version}")


def _has_gpu() -> bool:
    return _NVIDIA_DEVICE.exists()


def judge_encoder(tried: Tried, rendition: Rendition, has_gpu: bool) -> Diagnosis:
    depth = f", {rendition.bit_depth} bits" if rendition.bit_depth > 8 else ""
    subject = f"encoder {tried.encoder}{depth}"
    if tried.works is Works.YES:
        return ok(subject, "works")
    if not is_gpu(tried.encoder):
        return warn(subject, tried.reason, "install an ffmpeg with libx264 and libx265")
    if tried.works is Works.NOT_NOW:
        return warn(subject, tried.reason, "it may only be busy now: the CPU encodes meanwhile")
    if has_gpu:
        advice = "give the container the video capability, or use a GPU that has NVENC"
        return warn(subject, tried.reason, f"{advice}; until then the CPU encodes")
    return ok(subject, f"not here, the CPU encodes ({tried.reason})")
