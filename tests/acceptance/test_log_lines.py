"""Everything a service writes to standard error in production is JSON, from what is wrong with its
settings to its last line; what failed is not told as if all were well."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
from tests.support.ports import free_port
from tests.support.servers import SwiftServer
from tests.support.service import Site, open_site, reached

from cefmp4.model.part import MIB

pytestmark = [
    pytest.mark.integration,
    pytest.mark.acceptance,
    pytest.mark.asyncio(loop_scope="session"),
]

PATIENCE_S = 30.0
FIELDS = {"event", "level", "logger_name", "timestamp"}


async def lines(site: Site) -> list[dict[str, Any]]:
    """Each must be JSON, and say when, how bad and where."""
    found = [json.loads(line) for line in (await site.service.said()).splitlines()]
    assert found
    assert all(line.keys() >= FIELDS for line in found)
    return found


async def events(site: Site, level: str) -> list[str]:
    return [line["event"] for line in await lines(site) if line["level"] == level]


async def test_a_setting_that_is_wrong(s3_server: SwiftServer, tmp_path: Path) -> None:
    async with open_site(s3_server, tmp_path, SETTLE_SECONDS="soon") as site:
        await site.service.launch()
        assert await site.service.exit_code() == 2
        assert "SETTLE_SECONDS" in (await events(site, "error"))[0]


async def test_a_server_that_is_not_there(s3_server: SwiftServer, tmp_path: Path) -> None:
    nowhere = f"redis://127.0.0.1:{free_port()}/0"
    changes = {"REDIS_URL": nowhere, "STARTUP_TIMEOUT_SECONDS": "1"}
    async with open_site(s3_server, tmp_path, **changes) as site:
        await site.service.launch()
        assert await site.service.exit_code() == 3
        assert len(await events(site, "warning")) == 1
        assert len(await events(site, "error")) == 1


COMEBACK_S = 3.0  # when a file that could not be read would be tried again


async def uploading(site: Site, name: str) -> None:
    """A recording that is at work on: its first parts are sent."""
    (site.watched / name).write_bytes(os.urandom(11 * MIB))

    async def is_begun() -> bool:
        return any(stream.upload_id for stream in (await site.streams()).values())

    assert await reached(is_begun, PATIENCE_S)


async def said(site: Site, event: str) -> bool:
    async def is_said() -> bool:
        return event in await site.service.said()

    return await reached(is_said, PATIENCE_S)


async def test_a_life_with_an_old_spelling_a_failure_and_a_link(
    s3_server: SwiftServer, tmp_path: Path
) -> None:
    slow = {"PYTHON_LOG_LEVEL": "INFO", "SETTLE_SECONDS": "20"}
    async with open_site(s3_server, tmp_path, **slow) as site:
        await site.service.start()
        await uploading(site, "lost.mp4")
        (site.watched / "lost.mp4").unlink()
        assert await said(site, "stream failed")
        await uploading(site, "linked.mp4")
        link = tmp_path / "link"
        link.symlink_to("/etc/hosts")
        link.rename(site.watched / "linked.mp4")
        assert await said(site, "a symbolic link: not followed")
        await asyncio.sleep(COMEBACK_S)
        assert await site.service.stop() == 0
        warnings = await events(site, "warning")
        assert any("PYTHON_LOG_LEVEL" in event for event in warnings)
        assert warnings.count("a symbolic link: not followed") == 1
        assert await events(site, "error") == ["stream failed"]
        assert not any("fail" in event for event in await events(site, "info"))
        assert "Too many levels" not in await site.service.said()
