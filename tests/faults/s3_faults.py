"""What can go wrong with one request to S3: each function makes a fault for a rule of the proxy."""

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable

from tests.faults.s3_proxy import Exchange, Fault


def refused(status: int, code: str, *, retry_after_s: int = 0) -> Fault:
    async def fault(exchange: Exchange) -> bool:
        headers = f"Retry-After: {retry_after_s}\r\n" if retry_after_s else ""
        return await exchange.answer(status, code, headers)

    return fault


async def reset_in_the_middle(exchange: Exchange) -> bool:
    await exchange.read_body(exchange.request.length // 2)
    return exchange.reset()


async def answer_lost(exchange: Exchange) -> bool:
    """The server did what it was asked for; nobody is told."""
    await exchange.fetch()
    return exchange.reset()


async def request_truncated(exchange: Exchange) -> bool:
    await exchange.cut_off_upstream(await exchange.read_body(exchange.request.length // 2))
    return exchange.reset()


async def reply_truncated(exchange: Exchange) -> bool:
    reply = await exchange.fetch()
    exchange.writer.write(reply.head + reply.body[: len(reply.body) // 2])
    await exchange.writer.drain()
    return exchange.reset()


def stalled(seconds: float) -> Fault:
    """Nobody reads in the middle of the request; then it goes on."""

    async def fault(exchange: Exchange) -> bool:
        body = await exchange.read_body(exchange.request.length // 2)
        await asyncio.sleep(seconds)
        body += await exchange.read_body()
        reply = await exchange.fetch(body)
        exchange.writer.write(reply.head + reply.body)
        await exchange.writer.drain()
        return True

    return fault


async def never_answered(exchange: Exchange) -> bool:
    """A black hole: it takes everything and says nothing, until the client has had enough."""
    await exchange.read_body()
    await exchange.reader.read()
    return False


def slow(seconds: float) -> Fault:
    async def fault(exchange: Exchange) -> bool:
        await asyncio.sleep(seconds)
        return await exchange.forward()

    return fault


async def bytes_flipped(exchange: Exchange) -> bool:
    body = bytearray(await exchange.read_body())
    if body:
        body[len(body) // 2] ^= 0x40
    reply = await exchange.fetch(bytes(body))
    exchange.writer.write(reply.head + reply.body)
    await exchange.writer.drain()
    return True


async def wrong_etag(exchange: Exchange) -> bool:
    reply = await exchange.fetch()
    head = re.sub(rb"(?im)^etag:[^\r]*", b'ETag: "' + b"0" * 32 + b'"', reply.head)
    exchange.writer.write(head + reply.body)
    await exchange.writer.drain()
    return True


async def swallowed(exchange: Exchange) -> bool:
    """The part is confirmed with its right ETag, and stored nowhere."""
    etag = hashlib.md5(await exchange.read_body(), usedforsecurity=False).hexdigest()
    head = f'HTTP/1.1 200 OK\r\nContent-Length: 0\r\nETag: "{etag}"\r\n\r\n'
    exchange.writer.write(head.encode())
    await exchange.writer.drain()
    return True


def after(hook: Callable[[Exchange], Awaitable[None]]) -> Fault:
    """Something else happens just before this request reaches the server."""

    async def fault(exchange: Exchange) -> bool:
        await hook(exchange)
        return await exchange.forward()

    return fault
