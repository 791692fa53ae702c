"""Recordings for the HLS rows. No real footage is at hand: a zoom into a fractal, which has detail
everywhere and never stands still, with a camera's grain over it. They are made once and kept."""

import os
from dataclasses import dataclass
from pathlib import Path

from bench import meter
from bench.place import PASSED_ON, scratch

FOLDER = Path(__file__).parent / "results" / "media"
TIMEOUT_S = 600.0
SOUND = ("-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000")
AAC = ("-c:a", "aac", "-b:a", "160k", "-ac", "2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """`gop` in frames. x264's own default, 250, is what OBS and many others leave in place; with
    it a recording cannot be copied into HLS."""

    name: str
    width: int
    height: int
    seconds: int
    kbps: int
    gop: int = 250
    hevc: bool = False
    rate: int = 30
    loops: int = 1  # how often it is repeated, without encoding it again

    @property
    def length_s(self) -> int:
        return self.seconds * self.loops


async def made(recording: Recording) -> Path:
    """Its path; what was made once is taken again."""
    path = FOLDER / f"{recording.name}-{recording.length_s}s.mp4"
    if path.exists():
        return path
    FOLDER.mkdir(parents=True, exist_ok=True)
    with scratch(FOLDER) as folder:
        once = folder / "once.mp4"
        await _run(folder, *_encode(recording), once)
        whole = once
        if recording.loops > 1:
            whole = folder / "whole.mp4"
            again = ("-stream_loop", str(recording.loops - 1), "-i", once)
            await _run(folder, *again, "-map", "0", "-c", "copy", whole)
        os.rename(whole, path)
    return path


def _encode(recording: Recording) -> tuple[str, ...]:
    size = f"{recording.width}x{recording.height}"
    rate = f"{recording.kbps}k"
    return (
        *("-f", "lavfi", "-i", f"mandelbrot=size={size}:rate={recording.rate}:maxiter=200"),
        *(*SOUND, "-t", str(recording.seconds)),
        *("-vf", "noise=alls=4:allf=t,format=yuv420p"),
        *_encoder(recording),
        *("-b:v", rate, "-maxrate", rate, "-bufsize", rate, *AAC),
    )


def _encoder(recording: Recording) -> tuple[str, ...]:
    if not recording.hevc:
        return ("-c:v", "libx264", "-preset", "veryfast", "-g", str(recording.gop))
    parameters = f"keyint={recording.gop}:min-keyint={recording.gop}:open-gop=0:log-level=error"
    return ("-c:v", "libx265", "-preset", "ultrafast", "-tag:v", "hvc1", "-x265-params", parameters)


async def _run(folder: Path, *arguments: str | Path) -> None:
    run = await meter.run_measured(
        ["ffmpeg", "-v", "error", "-nostdin", "-y", *map(str, arguments)],
        environment={name: os.environ[name] for name in PASSED_ON if name in os.environ},
        folder=folder,
        timeout_s=TIMEOUT_S,
    )
    if run.code:
        raise RuntimeError(f"a recording could not be made: {run.output.strip()[-300:]}")
