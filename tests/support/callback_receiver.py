"""Whoever listens at WEBHOOK_URL: a real server that checks signatures and keeps what it was told,
and answers as a test wants."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from tests.support.ports import free_port

from cefmp4.jobs.webhook_signatures import ID, TIMESTAMP, is_signed

SECRET = "a secret that only they know"


@dataclass(frozen=True)
class Heard:
    message_id: str
    sent_at: int
    body: dict[str, Any]
    headers: dict[str, str]


@dataclass
class Receiver:
    """`answers`: the status of each answer to come, and good ones behind them. `goes_on`: until it
    is set, no answer begins."""

    port: int = field(default_factory=free_port)
    secret: str = SECRET
    answers: list[int] = field(default_factory=list)
    heard: list[Heard] = field(default_factory=list)
    unsigned: int = 0
    goes_on: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/in?key=hidden"

    @property
    def ids(self) -> list[str]:
        return [one.message_id for one in self.heard]

    def of_type(self, name: str) -> list[Heard]:
        return [one for one in self.heard if one.body["type"] == name]

    async def _take(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if not is_signed([self.secret], request.headers, body):
            self.unsigned += 1
            return web.Response(status=401)
        self.heard.append(
            Heard(
                request.headers[ID],
                int(request.headers[TIMESTAMP]),
                json.loads(body),
                dict(request.headers),
            )
        )
        await self.goes_on.wait()
        status = self.answers.pop(0) if self.answers else 204
        if 300 <= status < 400:
            return web.Response(status=status, headers={"Location": "/elsewhere"})
        return web.Response(status=status, body=b"x" * (1 << 20) if status == 200 else None)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """It hears nothing before and after."""
        self.goes_on.set()
        app = web.Application()
        app.router.add_post("/in", self._take)
        app.router.add_route("*", "/elsewhere", self._was_led_astray)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port).start()
        try:
            yield
        finally:
            await runner.cleanup()

    async def _was_led_astray(self, _request: web.Request) -> web.StreamResponse:
        raise AssertionError("a redirect was followed")
