"""A recording is dropped into the folder, and somebody watches it: `cefmp4 up` and a browser."""

import json
import re
import shutil
import time
from pathlib import Path

import aiohttp
import pytest
from redis.asyncio import Redis
from tests.support.chromium import NEEDS_CHROMIUM, Page, browsing
from tests.support.hls_media import NEEDS_FFMPEG, recording
from tests.support.ports import free_port
from tests.support.terminal import Running, cefmp4, store_of, up

from cefmp4.embedded.state import load_connection
from cefmp4.storage.s3.store import S3Store, open_s3_store
from cefmp4.web.page import HLS_JS

pytestmark = [
    pytest.mark.integration,
    pytest.mark.acceptance,
    pytest.mark.asyncio(loop_scope="session"),
    NEEDS_FFMPEG,
]
SECONDS = 5
AT_ONCE_S = 20.0  # from a start to the end of a job that has nothing to do


async def watch_url(running: Running) -> str:
    await running.says("  watch  ")
    found = re.search(r"^  watch +(\S+)  clip.mp4$", running.said, re.MULTILINE)
    assert found, running.said
    return found[1]


async def stored(store: S3Store) -> dict[str, tuple[str, float]]:
    """What changes of an object when it is written again."""
    return {one.key: (one.etag, one.modified_at) async for one in store.list_objects("")}


@NEEDS_CHROMIUM
@pytest.mark.skipif(not HLS_JS.exists(), reason="needs hls.js: scripts/player")
async def test_from_the_folder_to_the_screen(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    (folder / "local_watch_dir").mkdir(parents=True)
    port = str(free_port())
    async with up(folder, PROM_PORT=port, HLS_GPU="off") as running:
        await running.says("Drop a recording into the folder")
        recording(folder / "local_watch_dir", "-bf", "2", "-pix_fmt", "yuv420p", seconds=SECONDS)
        url = await watch_url(running)
        stream_id = url.rsplit("/", 1)[1]
        await check_commands(folder, port, stream_id, url)
        async with browsing(tmp_path) as page:
            await watch(page, f"http://127.0.0.1:{port}/", url)
        assert await running.ctrl_c(20) == 0
        assert "Traceback" not in running.said


async def check_commands(folder: Path, port: str, stream_id: str, url: str) -> None:
    for words in (("streams", "show", stream_id), ("jobs", "show", f"{stream_id}-hls")):
        for option in ((), ("--json",)):
            shown = await cefmp4(folder, *words, *option, PROM_PORT=port)
            assert shown.code == 0, shown.err
            found = json.loads(shown.out)["watch_url"] if option else shown.out
            assert url in found


async def watch(page: Page, home: str, url: str) -> None:
    """From the list to the player, and to the end of the recording."""
    await page.open(home)
    await page.until(
        "document.querySelector('#streams a.play:not([hidden])')?.href === '" + url + "'"
    )
    await page.value("document.querySelector('#streams a.play').click()")
    await page.until("location.pathname.startsWith('/watch/')")
    await page.until("video.readyState >= 2 && document.title.startsWith('clip.mp4')")
    assert await page.value("document.activeElement === video")
    await page.press(" ")  # the browser's own: the player has the focus
    await page.until("video.currentTime > 0.3 && !video.paused")
    await page.press("k")
    await page.until("video.paused")
    await page.press("ArrowDown")
    assert await page.value("video.volume") == pytest.approx(0.9)
    before = await page.value("video.currentTime")
    await page.press("ArrowRight")
    await page.until(f"video.currentTime > {before} + 1")
    await page.value("video.blur()")
    await page.press("ArrowLeft")
    await page.until("video.currentTime < 1")
    await page.press("m")
    assert await page.value("video.muted")
    await page.press(" ")  # ours: the player has lost the focus
    await page.until("video.ended")
    assert await page.value("video.duration") == pytest.approx(SECONDS, abs=0.2)
    assert await page.value("video.getVideoPlaybackQuality().totalVideoFrames") > 60
    assert await page.value("document.getElementById('notice').hidden")
    assert page.complaints == []


@pytest.mark.parametrize("has_jobs", [True, pytest.param(False, marks=pytest.mark.long)])
async def test_after_redis_was_emptied_finished_recordings_are_ready_at_once(
    tmp_path: Path, has_jobs: bool
) -> None:
    """Whether Temporal still knows their jobs, or was emptied, too."""
    folder = tmp_path / "new"
    (folder / "local_watch_dir").mkdir(parents=True)
    port = str(free_port())
    recording(folder / "local_watch_dir", "-bf", "2", "-pix_fmt", "yuv420p", seconds=SECONDS)
    settings = {"PROM_PORT": port, "HLS_GPU": "off"}
    async with up(folder, **settings) as running:
        url = await watch_url(running)
        async with open_s3_store(store_of(folder)) as store:
            before = await stored(store)
        place = load_connection(folder / ".cefmp4")
        assert place
        assert place.redis_url
        async with Redis.from_url(place.redis_url) as redis:
            await redis.flushall()
        assert await running.ctrl_c(20) == 0
    if not has_jobs:
        shutil.rmtree(folder / ".cefmp4" / "temporal")
    async with up(folder, **settings, FFMPEG_PATH="no-such-program") as running:
        await running.says("Drop a recording into the folder")
        started = time.monotonic()
        if has_jobs:  # then nobody is told again
            await running.says("stream is handed_over")
        else:
            assert await watch_url(running) == url
        assert time.monotonic() - started < AT_ONCE_S
        async with open_s3_store(store_of(folder)) as store:
            assert await stored(store) == before
        asked = f"http://127.0.0.1:{port}/api/watch/{url.rsplit('/', 1)[1]}"
        async with aiohttp.ClientSession() as session, session.get(asked) as response:
            assert (await response.json())["state"] == "ready"
        assert await running.ctrl_c(20) == 0
