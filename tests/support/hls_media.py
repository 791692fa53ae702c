"""Small recordings of every kind, and the examination of the HLS that was made of one."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.hls_parts import parsed
from tests.support.fake_store import FakeObjectStore

from cefmp4.hls.encode import HlsOptions
from cefmp4.hls.encoders import EncoderChooser
from cefmp4.hls.fragments import Fragment
from cefmp4.hls.make import HlsEncoder
from cefmp4.hls.result import HlsResult
from cefmp4.media.ffmpeg_run import RunLimits
from cefmp4.media.source import MediaSource
from cefmp4.model.rendition import RUNGS, CodecChoice
from cefmp4.outputs.publish import publish
from cefmp4.outputs.sink import SegmentSink

NEEDS_FFMPEG = pytest.mark.skipif(
    not (shutil.which("ffmpeg") and shutil.which("ffprobe")), reason="needs ffmpeg and ffprobe"
)
PICTURE = ("-f", "lavfi", "-i", "testsrc2=s=320x180:r=30")
SOUND = ("-f", "lavfi", "-i", "sine")
H264 = ("-c:v", "libx264", "-preset", "ultrafast")
AAC = ("-c:a", "aac")

_HLS_PARSER = Path(sys.prefix) / "node_modules/hls-parser"
_NODE = shutil.which("node") or shutil.which("node", path=f"{sys.prefix}/bin")
HAS_STRICT_PARSER = bool(_NODE) and _HLS_PARSER.exists()  # scripts/hls_tools fetches it
_PARSE = """
const HLS = require(process.argv[1]);
HLS.setOptions({strictMode: true});
const texts = Object.values(JSON.parse(require("fs").readFileSync(0)));
texts.forEach(text => HLS.parse(text));
console.log(texts.length);
"""


def ffmpeg(*arguments: str | Path) -> bytes:
    """Last in line for the processor: others use this machine, too."""
    argv = ["nice", "-n", "19", "ffmpeg", "-v", "error", "-nostdin", "-y", *map(str, arguments)]
    done = subprocess.run(argv, check=False, timeout=100, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def recording(folder: Path, *options: str, seconds: float = 3, name: str = "clip.mp4") -> Path:
    """Picture and sound, H.264 and AAC, a key frame every two seconds unless told otherwise."""
    target = folder / name
    usual = ("-g", "60", *H264, *AAC)
    ffmpeg(*PICTURE, *SOUND, "-t", str(seconds), *usual, *options, target)
    return target


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[MediaSource]:
    fd = os.open(path, os.O_RDONLY)
    try:
        yield MediaSource.of_file(fd)
    finally:
        os.close(fd)


def encoder(
    *,
    codecs: CodecChoice = CodecChoice.BOTH,
    rungs: tuple[int, ...] = RUNGS,
    may_copy: bool = False,
    has_thumbnails: bool = True,
    limits: RunLimits | None = None,
    chooser: EncoderChooser | None = None,
) -> HlsEncoder:
    chosen = chooser or EncoderChooser(program="ffmpeg", use_gpu=False)
    return HlsEncoder(
        chooser=chosen,
        options=HlsOptions(
            limits=limits or RunLimits(),
            codecs=codecs,
            rungs=rungs,
            may_copy=may_copy,
            has_thumbnails=has_thumbnails,
        ),
    )


def sink_of(store: FakeObjectStore, attempt: str = "1") -> SegmentSink:
    return SegmentSink(store, stream_id="s1", bucket="recordings", attempt=attempt)


@dataclass
class Encoded:
    store: FakeObjectStore
    result: HlsResult
    progress: list[float] = field(default_factory=list)  # shares of the whole

    def text(self, name: str) -> str:
        return self.store.data(f"hls/s1/{name}").decode()

    @property
    def master(self) -> str:
        return self.text("master.m3u8")


async def encode(
    path: Path,
    *,
    using: HlsEncoder | None = None,
    is_examined: bool = True,
    **options: object,
) -> Encoded:
    """With a store in memory; everything in it has been looked at when this returns, unless it is
    meant to be damaged."""
    store, progress = FakeObjectStore(), list[float]()
    made = using or encoder(**options)  # type: ignore[arg-type]  # the options of one test
    async with opened(path) as source:
        result = await made.encode(
            source, sink_of(store), progress=lambda pace: progress.append(pace.fraction)
        )
    await publish(store, stream_id="s1", attempt="1")
    encoded = Encoded(store, result, progress)
    if is_examined:
        await asyncio.to_thread(examine, encoded)
    return encoded


def examine(encoded: Encoded) -> None:
    """Every segment decodes alone, begins with a key frame, and follows on the one before."""
    examine_playlists(encoded)
    for track in encoded.result.tracks:
        folder = f"hls/s1/{track.folder}"
        init = encoded.store.data(f"{folder}/init.mp4")
        end = 0
        for row in track.rows:
            data = encoded.store.data(row.key)
            assert row.bytes == len(data)
            fragments = parsed(init + data)
            if track.is_video:
                assert all(fragment.samples[0].is_sync for fragment in fragments)
                assert_no_leading_pictures(fragments)
                frames = sum(len(fragment.samples) for fragment in fragments)
                assert decoded_frames(init + data) == frames
            else:
                decoded_frames(init + data, kind="a")
            assert fragments[0].start == end
            timescale = track.header.timescale
            assert abs(row.start * timescale - end) <= timescale * 1e-5
            end = fragments[-1].end
        if track.is_video:
            examine_key_frames(encoded, folder, init)


def examine_playlists(encoded: Encoded) -> None:
    names = [key for key in encoded.store.keys if key.endswith(".m3u8")]
    texts = {name: encoded.store.data(name).decode() for name in names}
    if HAS_STRICT_PARSER:
        assert strictly_parsed(texts) == len(texts) > 1


def strictly_parsed(texts: dict[str, str]) -> int:
    """How many playlists a parser of others took."""
    done = subprocess.run(
        [_NODE or "node", "-e", _PARSE, str(_HLS_PARSER)],
        input=json.dumps(texts).encode(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return int(done.stdout)


def examine_key_frames(encoded: Encoded, folder: str, init: bytes) -> None:
    """Each range of the I-frame playlist is one picture that decodes alone."""
    text = encoded.store.data(f"{folder}/iframes.m3u8").decode()
    for size, offset, name in re.findall(r"BYTERANGE:(\d+)@(\d+)\n(\S+)", text):
        segment = encoded.store.data(f"{folder}/{name}")
        piece = segment[int(offset) : int(offset) + int(size)]
        assert decoded_frames(init + piece, is_strict=False) == 1


def assert_no_leading_pictures(fragments: list[Fragment]) -> None:
    for fragment in fragments:
        at = 0
        for sample in fragment.samples:
            assert at + sample.cto >= fragment.samples[0].cto
            at += sample.duration


def decoded_frames(data: bytes, *, kind: str = "v", is_strict: bool = True) -> int:
    strict = ("-xerror",) if is_strict else ()
    argv = ["ffmpeg", "-v", "error", *strict, "-i", "pipe:0", "-map", f"0:{kind}"]
    argv += ["-fps_mode", "passthrough"] if kind == "v" else []
    argv += ["-f", "framecrc", "-"]
    done = subprocess.run(argv, input=data, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert not is_strict or not done.stderr, done.stderr.decode()
    return sum(not line.startswith(b"#") for line in done.stdout.splitlines())


def brightness(image: bytes, *, columns: int) -> list[int]:
    """In the middle of each picture of a row."""
    scaled = ("-vf", f"scale={columns * 3}:3:flags=area,format=gray")
    argv = ["ffmpeg", "-v", "error", "-i", "pipe:0", *scaled, "-f", "rawvideo", "-"]
    pixels = subprocess.run(argv, input=image, capture_output=True, timeout=60, check=True).stdout
    return list(pixels[columns * 3 + 1 : columns * 6 : 3])


def videos(result: HlsResult) -> list[tuple[str, int, int, float]]:
    return [
        (track.name, track.header.width, track.header.height, round(track.frame_rate, 3))
        for track in result.tracks
        if track.is_video
    ]


async def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # another process's doing has no event
            await asyncio.sleep(0.01)
