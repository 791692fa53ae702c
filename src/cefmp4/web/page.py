"""The pages and what they load. Nothing runs in them but files of ours, from here."""

from functools import cache
from pathlib import Path

from aiohttp import web

from cefmp4.model.names import is_subject

_FOLDER = Path(__file__).parent / "assets"
_TYPES = {
    "style.css": "text/css",
    "page.js": "text/javascript",
    "player.js": "text/javascript",
    "icon.svg": "image/svg+xml",
    "hls.min.js": "text/javascript",
}
# Fetched at installation, and no part of the source: scripts/player
HLS_JS = _FOLDER / "hls.min.js"

# blob: is how hls.js hands over to the browser what it loaded.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def routes() -> list[web.AbstractRouteDef]:
    return [web.get("/", _serve_page), web.get("/assets/{name}", _serve_asset)]


async def serve_player(request: web.Request) -> web.Response:
    is_known = is_subject(request.match_info["id"])
    return _page("player.html", status=200 if is_known else 404)


async def _serve_page(_request: web.Request) -> web.Response:
    return _page("page.html")


async def _serve_asset(request: web.Request) -> web.FileResponse:
    name = request.match_info["name"]
    if name not in _TYPES or not (_FOLDER / name).is_file():
        is_fetched = name == HLS_JS.name
        raise web.HTTPNotFound(
            text="hls.js was not fetched at installation: scripts/player does it"
            if is_fetched
            else "there is no such file"
        )
    headers = {"Content-Type": f"{_TYPES[name]}; charset=utf-8", "Cache-Control": "no-cache"}
    return web.FileResponse(_FOLDER / name, headers=headers)


def _page(name: str, *, status: int = 200) -> web.Response:
    return web.Response(
        text=_read(name),
        status=status,
        content_type="text/html",
        headers={"Content-Security-Policy": POLICY},
    )


@cache
def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")
