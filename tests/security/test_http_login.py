"""The login as a browser sees it: nothing before, the page after it, a link from another site, and
the logout."""

from pathlib import Path

import pytest
from aiohttp import web
from awscrt.checksums import crc64nvme
from tests.support.chromium import NEEDS_CHROMIUM, browsing
from tests.support.fake_store import FakeObjectStore
from tests.support.hls_media import recording
from tests.support.http_port import ID, LOOPBACK, TOKEN, WIDE, open_port

from cefmp4.config.page import PageSettings
from cefmp4.web.listener import listening

pytestmark = [pytest.mark.integration, NEEDS_CHROMIUM]

SET = (
    "document.getElementById('token').value = '{}'; document.querySelector('form').requestSubmit()"
)
IS_IN = "document.getElementById('streams') && document.body.innerText.includes('a.mp4')"
IS_OUT = "!!document.getElementById('login') && document.readyState === 'complete'"


async def test_a_person_logs_in_and_out(tmp_path: Path) -> None:
    async with open_port(WIDE) as port, browsing(tmp_path) as page:
        own = f"http://127.0.0.1:{port.number}/"

        async def link(_request: web.Request) -> web.Response:
            return web.Response(text=f"<a id=link href='{own}'>x</a>", content_type="text/html")

        await page.open(own)
        await page.until(IS_OUT)
        await page.value(SET.format("a wrong token, of some length"))
        await page.until("document.getElementById('message').innerText.includes('not the token')")
        await page.value(SET.format(TOKEN))
        await page.until(IS_IN)
        assert await page.value("document.cookie") == ""
        assert await page.value("Object.keys(localStorage).length") == 0
        assert TOKEN not in str(await page.value("JSON.stringify(sessionStorage)"))
        async with listening(PageSettings(), 0, [web.get("/", link)]) as other:
            await page.open(f"http://localhost:{other}/")
            await page.until("!!document.getElementById('link')")
            await page.value("document.getElementById('link').click()")
            await page.until(IS_IN)
        await page.until("!document.getElementById('logout').hidden")
        await page.value("document.getElementById('logout').click()")
        await page.until(IS_OUT)
        await page.open(own)
        await page.until(IS_OUT)
        assert not [said for said in page.complaints if "Content Security Policy" in said]


async def test_a_recording_opened_by_itself_plays_under_its_policy(tmp_path: Path) -> None:
    made = recording(tmp_path, "-pix_fmt", "yuv420p", seconds=2).read_bytes()
    store = FakeObjectStore()
    crc = crc64nvme(made)
    await store.put_object("streams/a.mp4", made, content_type="video/mp4", metadata={}, crc64=crc)
    async with open_port(LOOPBACK, store) as port, browsing(tmp_path) as page:
        await page.open(f"http://127.0.0.1:{port.number}/media/{ID}/file")
        await page.until("document.querySelector('video').readyState > 1")
        assert page.complaints == []
