"""The pages: what they may run, what they load, and what is said where hls.js is missing."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from cefmp4.config.page import PageSettings
from cefmp4.web import page
from cefmp4.web.listener import listening

ASSETS = Path(page.__file__).parent / "assets"
ID = "20260101T000000Z-0badcafe"


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with (
        listening(PageSettings(), 0, page.routes()) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as opened,
    ):
        yield opened


@pytest.mark.parametrize("path", ["/", f"/watch/{ID}"])
async def test_a_page_runs_only_files_of_ours(session: aiohttp.ClientSession, path: str) -> None:
    async with session.get(path) as response:
        assert response.status == 200
        html = await response.text()
        policy = response.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] == "no-referrer"
    assert not re.search(r"<style|style=|\son\w+=|<script>|javascript:", html)
    loaded = re.findall(r'<(?:script|link)[^>]+(?:src|href)="([^"]+)"', html)
    assert len(loaded) >= 3
    for address in loaded:
        assert address.startswith("/assets/")
        if "hls" not in address:
            async with session.get(address) as response:
                assert response.status == 200
                assert response.headers["Cache-Control"] == "no-cache"


def test_no_script_of_ours_makes_html_of_text() -> None:
    for script in (ASSETS / "page.js", ASSETS / "player.js"):
        text = script.read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", text)


async def test_a_name_that_none_can_have(session: aiohttp.ClientSession) -> None:
    async with session.get("/watch/s1") as response:
        assert response.status == 404
        assert response.content_type == "text/html"
    for name in ("page.html", "..%2fpage.py", "nothing.js"):
        async with session.get(f"/assets/{name}") as response:
            assert response.status == 404


async def test_without_hls_js_it_says_how_to_get_it(
    session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(page, "_FOLDER", tmp_path)
    async with session.get("/assets/hls.min.js") as response:
        assert response.status == 404
        assert "scripts/player" in (await response.json())["error"]
