"""Jobs that run while the product is replaced go on: each history of each released flow is carried
by today's code to the same steps. A flow that must go another way gets another name.

`python -m tests.support.record_histories` records those of a flow that has none yet."""

import asyncio
from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from cefmp4.model.job import job_id_of
from cefmp4.temporal.names import WORKFLOWS
from cefmp4.temporal.signing import data_converter
from cefmp4.temporal.workflows import JOBS

HISTORIES = Path(__file__).parent / "histories"
KEY = b"of-the-tests-only"
STORED = sorted(HISTORIES.glob("*/*.json"))


@pytest.mark.parametrize("stored", STORED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_job_of_before_goes_on_as_it_was(stored: Path) -> None:
    kind = next(kind for kind, name in WORKFLOWS.items() if name == stored.parent.name)
    history = WorkflowHistory.from_json(job_id_of("s", kind), stored.read_text())
    replayer = Replayer(workflows=list(JOBS.values()), data_converter=data_converter(KEY))
    asyncio.run(replayer.replay_workflow(history))


def test_every_flow_has_histories() -> None:
    assert {path.parent.name for path in STORED} >= set(WORKFLOWS.values())
