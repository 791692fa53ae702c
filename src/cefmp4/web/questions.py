"""What a request asks for, checked: its body, its range of bytes."""

import asyncio
import re
from collections.abc import Mapping

from aiohttp import web

BODY_S = 10.0  # all of it, however slowly it comes
_RANGE = re.compile(r"bytes=(?:(\d{1,19})-(\d{0,19})|-(\d{1,19}))", re.ASCII)
_ETAG = re.compile(r'(?:W/)?("[^"]*")')


async def read_body(request: web.Request) -> bytes:
    try:
        async with asyncio.timeout(BODY_S):
            return await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout(text=f"the body did not come within {BODY_S:g} s") from None


def asked_range(headers: Mapping[str, str], size: int, etag: str) -> range | None:
    """Empty where nothing of the file lies in it. None: the whole file, as for what is no range, or
    more than one, or of another content."""
    found = _RANGE.fullmatch(headers.get("Range", "").replace(" ", ""))
    if found is None or headers.get("If-Range", etag) != etag:
        return None
    first, last, suffix = found.groups()
    if suffix is not None:
        return range(max(0, size - int(suffix)), size)
    if last and int(last) < int(first):
        return None
    return range(int(first), min(size, int(last) + 1) if last else size)


def is_known(headers: Mapping[str, str], etag: str) -> bool:
    """Whether the request names this content as one that it has."""
    known = headers.get("If-None-Match", "")
    return known.strip() == "*" or etag in _ETAG.findall(known)
