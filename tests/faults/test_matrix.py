"""The short form of the matrix, scenario by scenario; `python -m tests.faults` runs the rest."""

from pathlib import Path

import pytest
from tests.faults.matrix import chosen, run_one
from tests.faults.registry import Scenario
from tests.faults.s3_client import open_client
from tests.support.servers import SwiftServer

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]
SEED = 1


@pytest.mark.parametrize("one", chosen((), is_short=True), ids=lambda one: one.name)
async def test_nothing_is_lost(one: Scenario, tmp_path: Path, s3_server: SwiftServer) -> None:
    async with open_client(s3_server) as client:
        verdict = await run_one(one, SEED, tmp_path / "world", s3_server, client)
    if verdict.skipped:
        pytest.skip(f"{verdict.skipped}, 21 November 2026")
    assert verdict.is_clean, str(verdict)
