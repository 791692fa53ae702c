"""The programs: which versions are there, and which encoders really encode on this machine."""

import asyncio
import re
from pathlib import Path

from cefmp4 import proc
from cefmp4.errors import ProgramMissingError
from cefmp4.model.diagnosis import Diagnosis, fail, ok, warn

_TIMEOUT_S = 20.0
_MAX_OUTPUT = 64 * 1024
_OLDEST_MAJOR = 5
_NVIDIA_DEVICE = Path("/dev/nvidiactl")
_MEMORY_SETTING = "FFPROBE_MEMORY_BYTES"


async def examine_media(ffprobe: str, memory_bytes: int) -> list[Diagnosis]:
    ffmpeg = beside(ffprobe)
    versions = await asyncio.gather(
        _program("ffprobe", ffprobe, "set FFPROBE_PATH or install ffmpeg", memory_bytes),
        _program("ffmpeg", ffmpeg, "install ffmpeg", None),
    )
    # One after another: each would take all cores, and a slow one would look like a broken one.
    encoders = [await _encoder(ffmpeg, name) for name in ("hevc_nvenc", "h264_nvenc")]
    encoders += [await _encoder(ffmpeg, name) for name in ("libx265", "libx264")]
    found = [entry for entry in encoders if entry is not None]
    return [*versions, *found]


def beside(ffprobe: str) -> str:
    """The ffmpeg that belongs to a ffprobe which is named by its path."""
    path = Path(ffprobe)
    return str(path.with_name("ffmpeg")) if path.parent != Path() else "ffmpeg"


async def _program(subject: str, program: str, advice: str, memory_bytes: int | None) -> Diagnosis:
    try:
        done = await proc.run(
            [program, "-version"],
            timeout_s=_TIMEOUT_S,
            memory_bytes=memory_bytes,
            max_output_bytes=_MAX_OUTPUT,
        )
    except ProgramMissingError as error:
        # Uploads work without either; what is lost is the description or the jobs.
        return warn(subject, str(error), advice)
    if not done.is_ok:
        if memory_bytes and "failed to map" in done.stderr_tail:
            return fail(
                subject, "it cannot start in the memory it gets", f"raise {_MEMORY_SETTING}"
            )
        return warn(subject, f"it does not run: {_last_line(done)}", advice)
    return judge_version(subject, done.stdout.decode("utf-8", "replace"))


def judge_version(subject: str, output: str) -> Diagnosis:
    match = re.search(r"version (\S+)", output)
    version = match[1] if match else "unknown"
    major = re.match(r"n?(\d+)\.", version)
    if major and int(major[1]) < _OLDEST_MAJOR:
        return warn(subject, f"version {version}", f"use version {_OLDEST_MAJOR} or newer")
    return ok(subject, f"version {version}")


async def _encoder(ffmpeg: str, name: str) -> Diagnosis | None:
    """Encodes eight frames: a list of encoders tells what was compiled in, not what works here."""
    try:
        done = await proc.run(
            [
                *(ffmpeg, "-nostdin", "-hide_banner", "-v", "error"),
                *("-f", "lavfi", "-i", "color=black:s=256x256:r=30"),
                *("-frames:v", "8", "-pix_fmt", "yuv420p", "-c:v", name, "-f", "null", "-"),
            ],
            timeout_s=_TIMEOUT_S,
            max_output_bytes=_MAX_OUTPUT,
        )
    except ProgramMissingError:
        return None  # told once, by its version
    return judge_encoder(name, done, has_gpu=_has_gpu())


def _has_gpu() -> bool:
    return _NVIDIA_DEVICE.exists()


def judge_encoder(name: str, done: proc.Finished, *, has_gpu: bool) -> Diagnosis:
    subject = f"encoder {name}"
    if done.is_ok:
        return ok(subject, "works")
    reason = "no end within the time limit" if done.timed_out else _first_line(done)
    if not name.endswith("_nvenc"):
        return warn(subject, reason, "install an ffmpeg that has it")
    if has_gpu:
        advice = "give the container the video capability, or use a GPU that has NVENC"
        return warn(subject, reason, f"{advice}; until then the CPU encodes")
    return ok(subject, f"not here, the CPU encodes ({reason})")


def _first_line(done: proc.Finished) -> str:
    """With NVENC the first line has the cause, the next ones are the same for all causes."""
    lines = [line.strip() for line in done.stderr_tail.splitlines() if line.strip()]
    text = lines[0] if lines else f"exit code {done.returncode}"
    return re.sub(r"\[[^\]]*@ 0x[0-9a-f]+\]\s*", "", text)[:200]


def _last_line(done: proc.Finished) -> str:
    lines = [line.strip() for line in done.stderr_tail.splitlines() if line.strip()]
    return lines[-1][:200] if lines else f"exit code {done.returncode}"
