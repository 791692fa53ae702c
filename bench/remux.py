"""Row: a recording that fits HLS as it is: how much faster than it plays it is published."""

from dataclasses import replace
from pathlib import Path

from bench import bare
from bench.hls_job import JobCost, Ladder, run_job
from bench.media import Recording, made
from bench.peers import installed, store
from bench.place import Options, place, scratch
from bench.report import Line
from cefmp4.model.rendition import CodecChoice

ROW = "remux"
SPEED = 50
LONG = Recording(
    name="lecture-1080p", width=1920, height=1080, seconds=10, kbps=8_000, gop=60, loops=60
)
SHORT = Recording(
    name="lecture-1080p", width=1920, height=1080, seconds=10, kbps=8_000, gop=60, loops=18
)


# HEVC fits where HEVC alone is wanted: many browsers cannot play it.
HEVC_ALONE = Ladder(codecs=CodecChoice.HEVC)


async def run(options: Options) -> list[Line]:
    h264 = SHORT if options.short else LONG
    hevc = replace(h264, name=f"{h264.name}-hevc", hevc=True)
    source = await made(h264)
    ours = await run_job(options, source)
    lines = [_published(h264, "H.264", ours), *await _peers(options, h264, source)]
    copied = await run_job(options, await made(hevc), settings=HEVC_ALONE.settings)
    return [*lines, _published(hevc, "HEVC", copied), _memory(max(ours.peak_rss, copied.peak_rss))]


def _published(recording: Recording, codec: str, ours: JobCost) -> Line:
    if ours.tier != "copy":
        raise RuntimeError(f"it was not copied but made on the {ours.tier}")
    length_s = recording.length_s
    what = f"{length_s} s of 1080p {codec}, {ours.media_bytes / 1e6:,.0f} MB"
    return Line(
        row=ROW, what=f"{what}: cefmp4: wall until published", measured=ours.wall_s, unit="s",
        limit=length_s / SPEED, against=f"1/{SPEED} of its length",
        note=f"{length_s / ours.wall_s:,.0f} x real time; {ours.cpu_s:.2f} CPU s",
    )  # fmt: skip


def _memory(peak_rss: int) -> Line:
    return Line(
        row=ROW,
        what="cefmp4: peak memory of the worker process",
        measured=peak_rss / 1e6,
        unit="MB",
    )


async def _peers(options: Options, recording: Recording, source: Path) -> list[Line]:
    length_s, lines = recording.length_s, []
    with scratch(options.files) as folder:
        hls = folder / "hls"
        hls.mkdir()
        alone = await bare.run(bare.copy_command(source, hls), folder)
        for peer in installed(options):
            async with place(options) as where:
                sent = await store(options, peer, where, hls)
            wall_s, cpu_s = alone.wall_s + sent.wall_s, alone.cpu_s + sent.cpu_s
            note = f"{length_s / wall_s:,.0f} x real time; {cpu_s:.2f} CPU s; no thumbnails"
            lines.append(Line(row=ROW, what=f"ffmpeg -c copy, then {peer.name}: wall",
                              measured=wall_s, unit="s", note=note))  # fmt: skip
    return lines
