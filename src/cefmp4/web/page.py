"""The pages and what they load. Nothing runs in them but files of ours, from here."""

import hashlib
from functools import cache
from pathlib import Path

from aiohttp import web

from cefmp4.model.names import is_subject
from cefmp4.web.questions import is_known

_FOLDER = Path(__file__).parent / "assets"
_TYPES = {
    "style.css": "text/css",
    "page.js": "text/javascript",
    "player.js": "text/javascript",
    "login.js": "text/javascript",
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
    return [
        web.get("/", _serve_page),
        web.get("/watch/{id}", _serve_player),
        web.get("/assets/{name}", _serve_asset),
    ]


def is_page(path: str) -> bool:
    """What a person opens: by a link, too."""
    return path in ("/", "/login") or path.startswith("/watch/")


async def _serve_player(request: web.Request) -> web.Response:
    is_known_form = is_subject(request.match_info["id"])
    return _page("player.html", status=200 if is_known_form else 404)


async def serve_login(_request: web.Request) -> web.Response:
    return login_page()


def login_page(status: int = 200) -> web.Response:
    return _page("login.html", status=status)


async def _serve_page(_request: web.Request) -> web.Response:
    return _page("page.html")


async def _serve_asset(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    if name not in _TYPES or not (_FOLDER / name).is_file():
        is_fetched = name == HLS_JS.name
        raise web.HTTPNotFound(
            text="hls.js was not fetched at installation: scripts/player does it"
            if is_fetched
            else "there is no such file"
        )
    body, etag = _read(_FOLDER / name)
    headers = {"Cache-Control": "no-cache", "ETag": etag}
    if is_known(request.headers, etag):
        return web.Response(status=304, headers=headers)
    headers["Content-Type"] = f"{_TYPES[name]}; charset=utf-8"
    return web.Response(body=body, headers=headers)


def _page(name: str, *, status: int = 200) -> web.Response:
    return web.Response(
        body=_read(_FOLDER / name)[0],
        status=status,
        content_type="text/html",
        charset="utf-8",
        headers={"Content-Security-Policy": POLICY},
    )


@cache
def _read(path: Path) -> tuple[bytes, str]:
    """Once: the page works on when no file can be opened."""
    body = path.read_bytes()
    return body, f'"{hashlib.sha256(body).hexdigest()[:32]}"'
