"""A real browser plays the result: frames advance, seeking works, every rendition gets used."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.support.hls_media import AAC, H264, PICTURE, Encoded, encode, ffmpeg, recording

from cefmp4.hls.result import Tier
from cefmp4.model.rendition import CodecChoice
from cefmp4.web.page import HLS_JS

_CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not shutil.which("ffmpeg"), reason="needs ffmpeg"),
    pytest.mark.skipif(not _CHROMIUM, reason="needs Chromium: apt-get install chromium"),
    pytest.mark.skipif(not HLS_JS.exists(), reason="needs hls.js: scripts/player"),
]

_PAGE = """<!doctype html><video id=v muted width=320></video><script src=/hls.js></script><script>
const video = document.getElementById("v");
const told = {levels: [], errors: [], codecs: [], audio: 0};
const report = () => fetch("/report", {method: "POST", body: JSON.stringify(told)});
const hls = new Hls({startLevel: 0, enableWorker: false});
hls.on(Hls.Events.ERROR, (_, e) => { if (e.fatal) { told.errors.push(e.details); report(); } });
hls.on(Hls.Events.MANIFEST_PARSED, (_, d) => {
  told.codecs = hls.levels.map(l => l.videoCodec); told.audio = d.audioTracks.length;
  video.play();
});
hls.on(Hls.Events.FRAG_CHANGED, (_, d) => { told.levels.push(d.frag.level); });
const frames = () => video.getVideoPlaybackQuality().totalVideoFrames;
let stage = 0;
setInterval(() => {
  if (stage === 0 && video.currentTime > 1 && frames() > 10) {
    stage = 1; told.first = frames(); hls.currentLevel = hls.levels.length - 1;
    video.currentTime = SEEK;
  } else if (stage === 1 && video.currentTime > SEEK + 0.5 && frames() > told.first + 5) {
    stage = 2; told.width = video.videoWidth; told.duration = video.duration;
    video.playbackRate = 4; told.frames = frames();
  } else if (stage === 2 && video.ended) { stage = 3; told.ended = true; report(); }
}, 50);
hls.loadSource("/hls/s1/master.m3u8"); hls.attachMedia(video);
</script>"""


@asynccontextmanager
async def site(encoded: Encoded, seek_s: float) -> AsyncIterator[tuple[str, asyncio.Future[Any]]]:
    report: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def page(_request: web.Request) -> web.Response:
        return web.Response(text=_PAGE.replace("SEEK", str(seek_s)), content_type="text/html")

    async def script(_request: web.Request) -> web.FileResponse:
        return web.FileResponse(HLS_JS)

    async def stored(request: web.Request) -> web.Response:
        key = request.path.removeprefix("/")
        found = await encoded.store.head(key)
        if found is None:
            return web.Response(status=404)
        return web.Response(
            body=encoded.store.data(key), headers={"Content-Type": found.content_type}
        )

    async def told(request: web.Request) -> web.Response:
        if not report.done():
            report.set_result(json.loads(await request.text()))
        return web.Response()

    app = web.Application()
    app.router.add_get("/", page)
    app.router.add_get("/hls.js", script)
    app.router.add_get("/hls/{rest:.*}", stored)
    app.router.add_post("/report", told)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/", report
    finally:
        await runner.cleanup()


async def played(encoded: Encoded, profile: Path, seek_s: float) -> dict[str, Any]:
    async with site(encoded, seek_s) as (url, report):
        browser = await asyncio.create_subprocess_exec(
            str(_CHROMIUM),
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--no-first-run",
            "--autoplay-policy=no-user-gesture-required",
            f"--user-data-dir={profile}",
            url,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(80):
                told: dict[str, Any] = await report
        finally:
            browser.terminate()
            await browser.wait()
    return told


async def test_the_h264_ladder_plays(tmp_path: Path) -> None:
    path = recording(tmp_path, "-s", "960x540", seconds=15)
    encoded = await encode(path, codecs=CodecChoice.H264)
    told = await played(encoded, tmp_path / "profile", seek_s=9)
    assert told["errors"] == []
    assert told["ended"]
    assert told["duration"] == pytest.approx(15.0, abs=0.1)
    assert set(told["levels"]) == {0, 1}
    assert told["width"] == 960
    assert told["frames"] > told["first"] > 10


async def test_beside_hevc_the_h264_rung_plays(tmp_path: Path) -> None:
    """Where HEVC cannot be decoded, its renditions are passed over."""
    encoded = await encode(recording(tmp_path, seconds=8))
    told = await played(encoded, tmp_path / "profile", seek_s=4)
    assert told["errors"] == []
    assert told["ended"]
    assert any(codec.startswith("avc1.") for codec in told["codecs"])


async def test_a_copy_plays(tmp_path: Path) -> None:
    path = recording(tmp_path, "-bf", "2", "-pix_fmt", "yuv420p", seconds=8)
    encoded = await encode(path, may_copy=True)
    assert encoded.result.tier is Tier.COPY
    told = await played(encoded, tmp_path / "profile", seek_s=4)
    assert told["errors"] == []
    assert told["ended"]


@pytest.mark.parametrize("may_copy", [True, False], ids=["copy", "encode"])
@pytest.mark.parametrize("sound_s", [6, 12], ids=["shorter", "longer"])
async def test_what_does_not_end_together_plays_to_its_end(
    tmp_path: Path, sound_s: int, may_copy: bool
) -> None:
    """Without what is done to it, players stall where the shorter of them is over."""
    path, sound = tmp_path / "clip.mp4", ("-f", "lavfi", "-i", f"sine=d={sound_s}")
    form = (*H264, "-g", "60", "-pix_fmt", "yuv420p", *AAC)
    ffmpeg(*PICTURE[:-1], f"{PICTURE[-1]}:d=9", *sound, *form, path)
    encoded = await encode(path, may_copy=may_copy, codecs=CodecChoice.H264)
    told = await played(encoded, tmp_path / "profile", seek_s=4)
    assert told["errors"] == []
    assert told["ended"]
    assert told["duration"] == pytest.approx(9.0, abs=0.05)
