"""The page: one file, whose script and style are the only ones the browser will run."""

import base64
import hashlib
import re
from functools import cache
from importlib import resources

from aiohttp import web


@cache
def _load() -> tuple[str, str]:
    html = resources.files("cefmp4.web").joinpath("page.html").read_text(encoding="utf-8")
    policy = (
        "default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; "
        f"script-src {_hash_of('script', html)}; style-src {_hash_of('style', html)}"
    )
    return html, policy


def _hash_of(tag: str, html: str) -> str:
    found = re.search(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    digest = hashlib.sha256(found[1].encode() if found else b"").digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


async def serve_page(_request: web.Request) -> web.Response:
    html, policy = _load()
    return web.Response(
        text=html, content_type="text/html", headers={"Content-Security-Policy": policy}
    )
