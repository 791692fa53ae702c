"""A recording behind an HTTP server that answers as a test wants."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web
from tests.support.hls_media import (
    recording,
)


def front_loaded(folder: Path, seconds: float = 8) -> Path:
    """Its index is at the front: cut anywhere, the head still promises everything."""
    return recording(folder, "-movflags", "faststart", seconds=seconds, name="front.mp4")


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def served(handler: Handler) -> tuple[web.AppRunner, str]:
    app = web.Application()
    app.router.add_get("/clip.mp4", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    return runner, f"http://{host}:{port}/clip.mp4?signature=hidden"
