"""What a request asks for: its query and its body, checked."""

import asyncio
from enum import StrEnum
from typing import TypeVar

from aiohttp import web

MAX_LIMIT = 10_000
BODY_S = 10.0  # all of it, however slowly it comes
S = TypeVar("S", bound=StrEnum)


def asked_state(request: web.Request, states: type[S]) -> S | None:
    text = request.query.get("state")
    try:
        return states(text) if text else None
    except ValueError:
        raise web.HTTPBadRequest(text=f"state must be one of {', '.join(states)}") from None


def asked_limit(request: web.Request, default: int, most: int = MAX_LIMIT) -> int:
    text = request.query.get("limit", str(default))
    if not (text.isascii() and text.isdecimal() and len(text) < 9 and 1 <= int(text) <= most):
        raise web.HTTPBadRequest(text=f"limit must be a number from 1 to {most}")
    return int(text)


async def read_body(request: web.Request) -> bytes:
    try:
        async with asyncio.timeout(BODY_S):
            return await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout(text=f"the body did not come within {BODY_S:g} s") from None
