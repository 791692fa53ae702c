"""The alerts of docs/alerts.yml on what a real service says of itself, scraped at intervals and
given to promtool: with a real fault each fires, and in a healthy life none does. Scrapes are taken
faster than Prometheus takes them; where an alert needs minutes the last one goes on."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from tests.faults.s3_proxy import Exchange, Rule, S3Proxy
from tests.support.promtool import Scrapes, check_alerts, check_value, needs_promtool
from tests.support.servers import SwiftServer
from tests.support.service import Site, open_site, reached

from cefmp4.model.part import MIB

pytestmark = [
    needs_promtool,
    pytest.mark.integration,
    pytest.mark.acceptance,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(180),
]

PATIENCE_S = 30.0
SCRAPE_S = 0.3
FOREVER = "60"  # longer than a test takes


class Scraper:
    """Prometheus, only faster."""

    def __init__(self, site: Site) -> None:
        self._url = f"http://127.0.0.1:{site.service.port}/metrics"
        self._began_at = time.time()
        self._texts: list[str] = []

    @property
    def scrapes(self) -> Scrapes:
        return Scrapes(self._texts, self._began_at)

    async def run(self) -> None:
        async with aiohttp.ClientSession() as http:
            while True:
                async with http.get(self._url) as reply:
                    self._texts.append(await reply.text())
                await asyncio.sleep(SCRAPE_S)

    async def sees(self, sample: str) -> None:
        """Waits for a line of a scrape."""

        async def is_there() -> bool:
            return any(line == sample for line in self._texts[-1].splitlines())

        assert self._texts, "nothing was scraped"
        assert await reached(is_there, PATIENCE_S), self._texts[-1]
        count = len(self._texts)

        async def goes_on() -> bool:
            return len(self._texts) >= count + 2

        assert await reached(goes_on, PATIENCE_S)


@asynccontextmanager
async def scraped(site: Site) -> AsyncIterator[Scraper]:
    scraper = Scraper(site)
    await site.service.start()
    scraping = asyncio.create_task(scraper.run())
    try:
        await asyncio.sleep(3 * SCRAPE_S)
        yield scraper
    finally:
        scraping.cancel()
        await asyncio.gather(scraping, return_exceptions=True)


@asynccontextmanager
async def proxied(s3: SwiftServer) -> AsyncIterator[S3Proxy]:
    proxy = S3Proxy(s3.port)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()


async def begin(site: Site, name: str, parts: int = 3) -> None:
    """A recording that is at work on: its first parts are sent."""
    (site.watched / name).write_bytes(os.urandom(parts * 5 * MIB + 1))

    async def is_begun() -> bool:
        return (await site.service.metrics()).get("cefmp4_open_multipart_uploads", 0) > 0

    assert await reached(is_begun, PATIENCE_S)


@pytest.mark.parametrize("per_stream", ["true", pytest.param("false", marks=pytest.mark.long)])
async def test_a_healthy_life(s3_server: SwiftServer, tmp_path: Path, per_stream: str) -> None:
    """Finished files and one that grows, all counted once."""
    sizes = [100_000, 6 * MIB, 11 * MIB]
    async with open_site(
        s3_server, tmp_path, METRICS_PER_STREAM=per_stream, HANDOVER_JOBS="none"
    ) as site:
        async with scraped(site) as scraper:
            for number, size in enumerate(sizes):
                (site.watched / f"{number}.mp4").write_bytes(os.urandom(size))
            with (site.watched / "growing.mp4").open("wb", buffering=0) as file:
                for _ in range(32):
                    file.write(os.urandom(MIB))
                    await asyncio.sleep(0.2)
            assert await site.described(site.files(), PATIENCE_S) == set()
            await scraper.sees("streams_completed_total 4.0")
        assert await site.service.stop() == 0
    total = sum(sizes) + 32 * MIB
    seen = scraper.scrapes
    check_alerts(tmp_path, seen.lasting(3600), set())
    check_value(tmp_path, seen, "sum(video_bytes_uploaded_total)", total)
    # Prometheus takes a series that begins or ends to have gone on for half an interval.
    grown = "sum(increase(video_bytes_uploaded_total[$range]))"
    check_value(tmp_path, seen, f"{grown} > bool {total * 0.99}", 1)
    check_value(tmp_path, seen, f"{grown} < bool {total * 1.05}", 1)


async def test_a_recording_that_vanished(s3_server: SwiftServer, tmp_path: Path) -> None:
    async with open_site(s3_server, tmp_path, SETTLE_SECONDS=FOREVER) as site:
        async with scraped(site) as scraper:
            await begin(site, "lost.mp4")
            (site.watched / "lost.mp4").unlink()
            await scraper.sees("streams_failed_total 1.0")
        await site.service.stop()
    check_alerts(tmp_path, scraper.scrapes.lasting(60), {"CefMP4StreamFailed"})


async def test_an_upload_that_was_aborted(s3_server: SwiftServer, tmp_path: Path) -> None:
    async with open_site(s3_server, tmp_path) as site:
        async with scraped(site) as scraper:
            await begin(site, "r.mp4")
            (stream,) = (await site.streams()).values()
            with (site.watched / "r.mp4").open("ab") as file:
                await site.store.abort_upload(stream.key, stream.upload_id)
                file.write(os.urandom(11 * MIB))
            sample = 'video_failed_operations_total{operation_type="upload_gone"} 1.0'
            await scraper.sees(sample)
            assert await site.described(["r.mp4"], PATIENCE_S) == set()
        assert await site.service.stop() == 0
    check_alerts(tmp_path, scraper.scrapes.lasting(60), {"CefMP4UploadGone"})


async def test_a_store_that_says_it_holds_other_bytes(
    s3_server: SwiftServer, tmp_path: Path
) -> None:
    async def refuse(exchange: Exchange) -> bool:
        return await exchange.answer(400, "BadDigest")

    async with proxied(s3_server) as proxy:
        changes = {"S3_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}"}
        async with open_site(s3_server, tmp_path, **changes) as site:
            async with scraped(site) as scraper:
                proxy.rules.append(Rule(fault=refuse, operation="CompleteMultipartUpload"))
                await begin(site, "r.mp4")
                assert await site.described(["r.mp4"], PATIENCE_S) == set()
                sample = 'video_failed_operations_total{operation_type="proof"} 1.0'
                await scraper.sees(sample)
            assert await site.service.stop() == 0
    check_alerts(tmp_path, scraper.scrapes.lasting(60), {"CefMP4ProofFailed"})


async def test_a_redis_that_is_away(s3_server: SwiftServer, tmp_path: Path) -> None:
    async with open_site(s3_server, tmp_path) as site:
        async with scraped(site) as scraper:
            await site.valkey.stop()
            await scraper.sees('cefmp4_server_up{server="redis"} 0.0')
        await site.service.kill()
    fired = {"CefMP4ServerAway", "CefMP4NotReady"}
    check_alerts(tmp_path, scraper.scrapes.lasting(600), fired)


async def test_a_recording_that_cannot_be_sent(s3_server: SwiftServer, tmp_path: Path) -> None:
    """The age of what waits grows by a second each second; here by an hour at the end."""
    async with proxied(s3_server) as proxy:
        changes = {"S3_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}"}
        async with open_site(s3_server, tmp_path, **changes) as site:
            async with scraped(site) as scraper:
                rule = Rule(fault=_unavailable, operation="UploadPart", times=10_000)
                proxy.rules.append(rule)
                (site.watched / "r.mp4").write_bytes(os.urandom(16 * MIB))
                await asyncio.sleep(3)
            await site.service.kill()
    texts = scraper.scrapes.texts
    behind = [_value(text, "cefmp4_seconds_behind") for text in texts]
    assert behind[-1] - behind[-5] == pytest.approx(4 * SCRAPE_S, abs=0.6)
    late = texts[-1].replace(f"cefmp4_seconds_behind {behind[-1]}", "cefmp4_seconds_behind 3600.0")
    seen = Scrapes([*texts, late], time.time()).lasting(120)
    check_alerts(tmp_path, seen, {"CefMP4Behind", "CefMP4ServerAway"})


async def _unavailable(exchange: Exchange) -> bool:
    return await exchange.answer(500, "InternalError")


def _value(text: str, name: str) -> float:
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} "))
