"""Row: a ladder made by one ffmpeg that decodes once, beside one ffmpeg run for each rendition,
with the same filters and options, one after the other."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench import bare
from bench.hls_job import JobCost, Ladder, run_job
from bench.media import Recording, made
from bench.meter import Run
from bench.place import Options, scratch
from bench.report import Line
from cefmp4.model.rendition import CodecChoice

ROW = "ladder"
SHARE = 0.8
ROUNDS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    what: str
    recording: Recording
    ladder: Ladder = field(default_factory=Ladder)
    has_limit: bool = False


HD = Recording(name="desk-1080p", width=1920, height=1080, seconds=18, kbps=20_000)
UHD = Recording(name="drone-2160p", width=3840, height=2160, seconds=6, kbps=60_000)
BELOW = Ladder(codecs=CodecChoice.HEVC, rungs=(720, 480, 360))
TOP = Ladder(rungs=(1080, 720))
LIMITED = (
    Case(what="1080p to 720, 480, 360", recording=HD, ladder=BELOW, has_limit=True),
    Case(what="2160p to 1080, 720, H.264 720", recording=UHD, ladder=TOP, has_limit=True),
)
# One run saves the decoding and scaling of the others. Next to encoders at the source's own size
# that is little; shown, so that nobody expects more.
SHOWN = (
    Case(what="1080p to 1080, 720, H.264 720", recording=HD, ladder=TOP),
    Case(what="1080p to the default five", recording=HD),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    alone: list[Run]
    ours: JobCost

    @property
    def alone_cpu_s(self) -> float:
        return sum(run.cpu_s for run in self.alone)

    @property
    def alone_wall_s(self) -> float:
        return sum(run.wall_s for run in self.alone)


async def run(options: Options) -> list[Line]:
    lines: list[Line] = []
    for case in LIMITED[:1] if options.short else (*LIMITED, *SHOWN):
        source = await made(case.recording)
        rounds = 1 if options.short or not case.has_limit else ROUNDS
        lines += _lines(case, [await _round(options, source, case) for _ in range(rounds)])
    return lines


async def _round(options: Options, source: Path, case: Case) -> Round:
    alone = await _alone(options, source, case)
    ours = await run_job(options, source, settings=case.ladder.settings)
    if ours.tier != "cpu":
        raise RuntimeError(f"{case.what}: the tier was {ours.tier}")
    return Round(alone=alone, ours=ours)


async def _alone(options: Options, source: Path, case: Case) -> list[Run]:
    examined = await bare.examined(source)
    runs = []
    for number, rendition in enumerate(case.ladder.of(examined)):
        with scratch(options.files) as folder:
            command = bare.encode_command(source, examined, rendition, folder, has_rest=number == 0)
            runs.append(await bare.run(command, folder))
    return runs


def _lines(case: Case, rounds: list[Round]) -> Iterator[Line]:
    count, videos = len(rounds), len(rounds[0].alone)
    cpu_s = sum(each.ours.cpu_s for each in rounds) / count
    alone_cpu_s = sum(each.alone_cpu_s for each in rounds) / count
    shares = " ".join(f"{each.ours.cpu_s / each.alone_cpu_s:.3f}" for each in rounds)
    yield Line(
        row=ROW, what=f"{case.what}: cefmp4: CPU", measured=cpu_s, unit="s",
        limit=SHARE * alone_cpu_s if case.has_limit else None, against=f"{SHARE} x {videos} runs",
        note=f"{cpu_s / alone_cpu_s:.3f} of {videos} separate runs; each round: {shares}",
    )  # fmt: skip
    yield Line(
        row=ROW, what=f"{case.what}: cefmp4: wall until published", unit="s",
        measured=sum(each.ours.wall_s for each in rounds) / count,
        note=" ".join(rounds[0].ours.renditions),
    )  # fmt: skip
    each_cpu_s = " + ".join(f"{run.cpu_s:.1f}" for run in rounds[0].alone)
    yield Line(
        row=ROW, what=f"{case.what}: {videos} ffmpeg runs: CPU", measured=alone_cpu_s, unit="s",
        note=f"{each_cpu_s}; sound and thumbnails in the first",
    )  # fmt: skip
    yield Line(
        row=ROW, what=f"{case.what}: {videos} ffmpeg runs: wall, one after the other", unit="s",
        measured=sum(each.alone_wall_s for each in rounds) / count,
    )  # fmt: skip
