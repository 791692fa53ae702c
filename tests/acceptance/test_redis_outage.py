"""What a service says of a Redis that is away while recordings grow and a job runs: one line when
it begins, one when it is over, none with the id of a stream that has no part in it. A worker, which
needs none, says nothing. CEFMP4_OUTAGE_S says how long it lasts."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.hls_media import recording
from tests.support.job_workers import open_yard
from tests.support.servers import SwiftServer
from tests.support.service import Site

from cefmp4.model.part import MIB

pytestmark = [
    pytest.mark.integration,
    pytest.mark.acceptance,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(300),
]

OUTAGE_S = float(os.environ.get("CEFMP4_OUTAGE_S", "12"))
STREAMS = 6
PATIENCE_S = 60.0
BEGIN, END = "Redis does not answer: uploads wait", "Redis answers again after"


def lines(log: Path) -> list[dict[str, Any]]:
    """Each must be JSON."""
    return [json.loads(line) for line in log.read_text().splitlines()]


@asynccontextmanager
async def growing(folder: Path, count: int) -> AsyncIterator[list[str]]:
    """Recorders that are at work from beginning to end."""

    async def record(path: Path) -> None:
        with path.open("wb", buffering=0) as file:
            while True:
                file.write(os.urandom(MIB))
                await asyncio.sleep(0.2)

    names = [f"{number}.mp4" for number in range(count)]
    recorders = [asyncio.create_task(record(folder / name)) for name in names]
    try:
        yield names
    finally:
        for recorder in recorders:
            recorder.cancel()
        await asyncio.gather(*recorders, return_exceptions=True)


async def test_an_outage_is_one_line_when_it_begins_and_one_when_it_ends(
    s3_server: SwiftServer, tmp_path: Path
) -> None:
    clip = await asyncio.to_thread(lambda: recording(tmp_path).read_bytes())
    async with open_yard(s3_server, tmp_path) as yard:
        site = yard.site
        await site.service.start()
        (worker,) = await yard.start_workers(1)
        await suffer(site, clip)
        assert await worker.stop() == 0
        assert await site.service.stop() == 0
    check_outage(lines(site.service.log))
    check_ids(lines(site.service.log))
    assert troubles_in(lines(worker.log)) == []  # it needs no Redis


async def suffer(site: Site, clip: bytes) -> None:
    """A recording that is handed over comes first: that opens the way to Temporal, from within its
    stream. Others are at work when Redis goes, and some begin while it is away."""
    (site.watched / "first.mp4").write_bytes(clip)
    assert await site.described(["first.mp4"], PATIENCE_S) == set()
    async with growing(site.watched, STREAMS) as names:
        await asyncio.sleep(3)
        await site.valkey.stop()
        (site.watched / "meanwhile.mp4").write_bytes(clip * 2)
        await asyncio.sleep(OUTAGE_S)
        await site.valkey.start()
        await asyncio.sleep(6)
    assert await site.described([*names, "meanwhile.mp4"], PATIENCE_S) == set()


def troubles_in(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    troubles = [line for line in log if line["level"] not in ("debug", "info")]
    return [line for line in troubles if line["event"] != "not playable"]


def check_outage(log: list[dict[str, Any]]) -> None:
    troubles = troubles_in(log)
    assert [line["event"][: len(BEGIN)] for line in troubles[:1]] == [BEGIN], troubles
    assert len(troubles) == 2, troubles
    assert troubles[1]["event"].startswith(END)
    assert OUTAGE_S - 2 <= float(troubles[1]["event"].split()[-2]) <= OUTAGE_S + 10
    for line in troubles:
        assert not {"exception", "stream_id", "job_id"} & line.keys(), line


def check_ids(log: list[dict[str, Any]]) -> None:
    """Lines about a path have the id of its stream, and of no other."""
    owners = {
        line["file_path"]: line["stream_id"] for line in log if line["event"] == "stream begins"
    }
    assert len(owners) == STREAMS + 2
    for line in log:
        if line.get("file_path") in owners and "stream_id" in line:
            assert line["stream_id"] == owners[line["file_path"]], line
