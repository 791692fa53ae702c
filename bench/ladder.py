"""Row: a ladder made by one ffmpeg that decodes once, beside one ffmpeg run for each rendition,
with the same filters and options, one after the other."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import bare
from bench.hls_job import JobCost, run_job
from bench.media import Recording, made
from bench.meter import Run
from bench.place import Options, scratch
from bench.report import Line

ROW = "ladder"
THREE = ("hevc-1080p", "hevc-720p", "h264-720p")
SHARE = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """`only` empty: the ladder as it is planned."""

    what: str
    recording: Recording
    only: tuple[str, ...] = ()
    has_limit: bool = True


HD = Recording(name="desk-1080p", width=1920, height=1080, seconds=18, kbps=20_000)
UHD = Recording(name="drone-2160p", width=3840, height=2160, seconds=6, kbps=60_000)
CASES = (
    Case(what="2160p to three", recording=UHD, only=THREE),
    Case(what="1080p to all that is planned", recording=HD),
    # Never planned, and only shown: next to two encoders at nearly the size of the source, sharing
    # the decoder cannot save more than about a sixth.
    Case(what="1080p to three", recording=HD, only=THREE, has_limit=False),
)
SHORT_CASES = (Case(what="2160p to three", recording=UHD, only=THREE),)


async def run(options: Options) -> list[Line]:
    lines: list[Line] = []
    for case in SHORT_CASES if options.short else CASES:
        source = await made(case.recording)
        alone = await _alone(options, source, case)
        ours = await run_job(options, source, only=case.only)
        if ours.tier != "cpu":
            raise RuntimeError(f"{case.what}: the tier was {ours.tier}")
        lines += _lines(case, alone, ours)
    return lines


async def _alone(options: Options, source: Path, case: Case) -> list[Run]:
    examined = await bare.examined(source)
    runs = []
    for number, rendition in enumerate(bare.planned(examined, case.only)):
        with scratch(options.files) as folder:
            command = bare.encode_command(source, examined, rendition, folder, has_rest=number == 0)
            runs.append(await bare.run(command, folder))
    return runs


def _lines(case: Case, alone: list[Run], ours: JobCost) -> Iterator[Line]:
    cpu_s, wall_s = sum(run.cpu_s for run in alone), sum(run.wall_s for run in alone)
    videos = len(alone)
    each = " + ".join(f"{run.cpu_s:.1f}" for run in alone)
    yield Line(
        row=ROW, what=f"{case.what}: cefmp4: CPU", measured=ours.cpu_s, unit="s",
        limit=SHARE * cpu_s if case.has_limit else None, against=f"{SHARE} x {videos} runs",
        note=f"{ours.cpu_s / cpu_s:.3f} of {videos} separate runs",
    )  # fmt: skip
    yield Line(row=ROW, what=f"{case.what}: cefmp4: wall until published", measured=ours.wall_s,
               unit="s", note=" ".join(ours.renditions))  # fmt: skip
    yield Line(row=ROW, what=f"{case.what}: {videos} ffmpeg runs: CPU", measured=cpu_s, unit="s",
               note=f"{each}; sound and thumbnails in the first")  # fmt: skip
    yield Line(row=ROW, what=f"{case.what}: {videos} ffmpeg runs: wall, one after the other",
               measured=wall_s, unit="s")  # fmt: skip
