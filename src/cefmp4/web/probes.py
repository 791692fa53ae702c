"""What scrapers and orchestrators ask: metrics and health. The ingest side and the worker answer
alike."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from cefmp4 import metrics
from cefmp4.errors import CefError

MEASURE_S = 1.0  # then a scrape goes on with what was measured last


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """`stalled` names the loops that have stopped turning: only a restart helps. `waiting_for` says
    why work cannot go on now, such as a server that is out of reach or a recovery that runs."""

    stalled: tuple[str, ...] = ()
    waiting_for: tuple[str, ...] = ()

    @property
    def is_live(self) -> bool:
        return not self.stalled

    @property
    def is_ready(self) -> bool:
        return not self.reasons

    @property
    def dead_reasons(self) -> list[str]:
        return [f"{name} has stopped" for name in self.stalled]

    @property
    def reasons(self) -> list[str]:
        return [*self.dead_reasons, *self.waiting_for]


async def nothing_to_measure() -> None:
    return


class Probes:
    """`measure` brings metrics up to date that nobody keeps so."""

    def __init__(
        self,
        health: Callable[[], Health],
        measure: Callable[[], Awaitable[object]] = nothing_to_measure,
    ) -> None:
        self._health = health
        self._measure = measure
        self._disks: asyncio.Task[None] | None = None

    def routes(self) -> list[web.AbstractRouteDef]:
        return [
            web.get("/metrics", self._metrics),
            web.get("/livez", self._livez),
            web.get("/readyz", self._readyz),
            web.get("/healthz", self._readyz),
        ]

    async def _metrics(self, _request: web.Request) -> web.Response:
        await asyncio.gather(self._measure_in_time(), self._measure_disks())
        health = self._health()
        metrics.is_live.set(health.is_live)
        metrics.is_ready.set(health.is_ready)
        return web.Response(
            body=generate_latest(metrics.REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    async def _measure_in_time(self) -> None:
        try:
            async with asyncio.timeout(MEASURE_S):
                await self._measure()
        except (CefError, TimeoutError):
            pass  # cefmp4_server_up tells of it; all other metrics are worth having

    async def _measure_disks(self) -> None:
        """One look at a time: on a mount that is dead it may take for ever."""
        if self._disks is None or self._disks.done():
            self._disks = asyncio.create_task(asyncio.to_thread(metrics.measure_disks))
        await asyncio.wait({self._disks}, timeout=MEASURE_S)

    async def _livez(self, _request: web.Request) -> web.Response:
        health = self._health()
        return _verdict(health.is_live, health.dead_reasons)

    async def _readyz(self, _request: web.Request) -> web.Response:
        health = self._health()
        return _verdict(health.is_ready, health.reasons)


def _verdict(is_well: bool, reasons: list[str]) -> web.Response:
    body = {"status": "ok" if is_well else "unavailable", "reasons": reasons}
    return web.json_response(text=json.dumps(body) + "\n", status=200 if is_well else 503)
