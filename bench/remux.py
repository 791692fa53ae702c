"""Row: a recording that fits HLS as it is: how much faster than it plays it is published."""

from bench import bare
from bench.hls_job import run_job
from bench.media import Recording, made
from bench.peers import installed, store
from bench.place import Options, place, scratch
from bench.report import Line

ROW = "remux"
SPEED = 50
LONG = Recording(
    name="lecture-1080p", width=1920, height=1080, seconds=10, kbps=8_000, gop=60, loops=60
)
SHORT = Recording(
    name="lecture-1080p", width=1920, height=1080, seconds=10, kbps=8_000, gop=60, loops=18
)


async def run(options: Options) -> list[Line]:
    recording = SHORT if options.short else LONG
    source = await made(recording)
    ours = await run_job(options, source)
    if ours.tier != "copy":
        raise RuntimeError(f"it was not copied but made on the {ours.tier}")
    length_s = recording.length_s
    what = f"{length_s} s of 1080p H.264, {ours.media_bytes / 1e6:,.0f} MB"
    lines = [
        Line(row=ROW, what=f"{what}: cefmp4: wall until published", measured=ours.wall_s, unit="s",
             limit=length_s / SPEED, against=f"1/{SPEED} of its length",
             note=f"{length_s / ours.wall_s:,.0f} x real time; {ours.cpu_s:.2f} CPU s"),
        Line(row=ROW, what="cefmp4: peak memory of the worker process",
             measured=ours.peak_rss / 1e6, unit="MB"),
    ]  # fmt: skip
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
