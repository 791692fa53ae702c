"""Row: one rendition, from the submitting of the job to the published playlist, beside the bare
ffmpeg command that writes the same into a folder, and beside an upload of that folder."""

from collections.abc import Iterator
from pathlib import Path

from bench import bare
from bench.hls_job import JobCost, Ladder, run_job
from bench.media import Recording, made
from bench.meter import Run
from bench.peers import installed, store
from bench.place import Options, place, scratch
from bench.report import Line
from cefmp4.hls.ffmpeg import SEGMENT_SECONDS
from cefmp4.model.rendition import CodecChoice

ROW = "hls"
RENDITION = "hevc-1080p"
ONE = Ladder(codecs=CodecChoice.HEVC, rungs=(1080,))
LONG = Recording(name="desk-1080p", width=1920, height=1080, seconds=18, kbps=20_000)
SHORT = Recording(name="desk-1080p", width=1920, height=1080, seconds=9, kbps=20_000)
ROUNDS, SHORT_ROUNDS = 2, 1
FIRST_SEGMENTS = 3


async def run(options: Options) -> list[Line]:
    recording, rounds = (SHORT, SHORT_ROUNDS) if options.short else (LONG, ROUNDS)
    source = await made(recording)
    alone, ours = list[Run](), list[JobCost]()
    with scratch(options.files) as folder:
        hls = folder / "hls"
        hls.mkdir()
        for number in range(rounds):
            # In turn, and the other way round the next time: what else runs here may change.
            if number % 2 == 0:
                alone.append(await _bare(source, folder))
                ours.append(await _ours(options, source))
            else:
                ours.append(await _ours(options, source))
                alone.append(await _bare(source, folder))
        lines = list(_lines(recording, alone, ours))
        return lines + await _uploads(options, hls, alone)


async def _ours(options: Options, source: Path) -> JobCost:
    return await run_job(options, source, awaited=RENDITION, settings=ONE.settings)


async def _bare(source: Path, folder: Path) -> Run:
    examined = await bare.examined(source)
    (rendition,) = ONE.of(examined)
    return await bare.run(bare.encode_command(source, examined, rendition, folder / "hls"), folder)


def _lines(recording: Recording, alone: list[Run], ours: list[JobCost]) -> Iterator[Line]:
    rounds = len(ours)
    cpu_s, wall_s = sum(r.cpu_s for r in ours) / rounds, sum(r.wall_s for r in ours) / rounds
    bare_cpu_s = sum(r.cpu_s for r in alone) / rounds
    bare_wall_s = sum(r.wall_s for r in alone) / rounds
    what = f"{RENDITION} of {recording.length_s} s"
    each = " ".join(f"{our.cpu_s / its.cpu_s:.3f}" for our, its in zip(ours, alone, strict=True))
    yield Line(
        row=ROW, what=f"{what}: cefmp4: CPU", measured=cpu_s, unit="s", limit=1.05 * bare_cpu_s,
        against="1.05 x ffmpeg alone", note=f"of ffmpeg alone, each round: {each}",
    )  # fmt: skip
    yield Line(
        row=ROW, what=f"{what}: cefmp4: wall until published", measured=wall_s, unit="s",
        limit=1.15 * bare_wall_s, against="1.15 x ffmpeg alone",
        note=f"probe and upload of {ours[0].media_bytes / 1e6:.1f} MB included",
    )  # fmt: skip
    yield Line(
        row=ROW, what=f"{what}: ffmpeg alone, to a folder: CPU", measured=bare_cpu_s, unit="s",
        note="sound, thumbnails and poster on both sides",
    )  # fmt: skip
    yield Line(
        row=ROW, what=f"{what}: ffmpeg alone, to a folder: wall", measured=bare_wall_s, unit="s"
    )  # fmt: skip
    first_s = max(run.first_s for run in ours if run.first_s)
    segment_s = SEGMENT_SECONDS * min(run.wall_s for run in ours) / recording.length_s
    yield Line(
        row=ROW, what="submitting to the first segment fetchable", measured=first_s, unit="s",
        limit=FIRST_SEGMENTS * segment_s, against=f"{FIRST_SEGMENTS} segments' encode time",
        note=f"one takes {segment_s:.2f} s",
    )  # fmt: skip
    yield Line(
        row=ROW, what="cefmp4: peak memory of the worker process",
        measured=max(run.peak_rss for run in ours) / 1e6, unit="MB",
        note=f"its start, not counted above: {ours[0].start_cpu_s:.2f} CPU s",
    )  # fmt: skip


async def _uploads(options: Options, hls: Path, alone: list[Run]) -> list[Line]:
    """The folder that ffmpeg left, sent afterwards."""
    lines = []
    for peer in installed(options):
        async with place(options) as where:
            sent = await store(options, peer, where, hls)
        wall_s = sum(run.wall_s for run in alone) / len(alone) + sent.wall_s
        cpu_s = sum(run.cpu_s for run in alone) / len(alone) + sent.cpu_s
        what = f"ffmpeg, then {peer.name}: wall"
        lines.append(Line(row=ROW, what=what, measured=wall_s, unit="s", note=f"{cpu_s:.2f} CPU s"))
    return lines
