"""`python -m tests.support.record_histories` records how jobs of today's flows go, on a Temporal of
its own, for tests/unit/temporal/test_histories.py. What is there already stays: it was released."""

import asyncio
import json
import logging
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import PollActivityTaskQueueRequest
from temporalio.client import Client
from tests.support.pretence import Pretence, pretending, until
from tests.support.temporal_server import JobPlace, TemporalServer

from cefmp4.jobs import flow
from cefmp4.jobs.slots import Slots
from cefmp4.model.job import JobInput, JobKind, JobSpec, Step
from cefmp4.temporal.desk import Desk
from cefmp4.temporal.names import LIVES, WORKFLOWS, queue_of
from cefmp4.temporal.worker import working

FOLDER = Path(__file__).parents[1] / "unit/temporal/histories"
LOST = "lost-and-lives"
# What `Pretence` makes of the parameters.
CASES: dict[str, dict[str, str]] = {
    "copied": {"copy": "1"},
    "encoded": {},
    "made-before": {"copy": "1", "old": "1"},
    "bad-input": {"bad": "no video in it"},
    "tried-again": {"fails": "2"},
    "used-up": {"fails": "9"},
    "server-away": {"away": "2"},
    "cancelled": {"waits": "1"},
    LOST: {},
}
JOB_ID = "s-hls"


async def record(server: TemporalServer, name: str, target: Path) -> None:
    client = await JobPlace(server.address, await server.new_namespace()).connect()
    desk, pretence = Desk(client), Pretence()
    await desk.submit(
        JobSpec(subject="s", kind=JobKind.HLS, input=JobInput(key="k"), params=CASES[name])
    )
    if name == LOST:
        async with at_work(client, pretence, encodes=False):
            await lose_an_encode(client, desk)
    async with at_work(client, pretence):
        if name == "cancelled":
            await until(lambda: _has_begun(pretence))
            await desk.cancel(JOB_ID)
        handle = client.get_workflow_handle(JOB_ID)
        await until(lambda: _has_ended(client))
        history = await handle.fetch_history()
    told = json.loads(history.to_json(), object_hook=_without_traces)
    await asyncio.to_thread(target.write_text, json.dumps(told, indent=1) + "\n")


@asynccontextmanager
async def at_work(
    client: Client, pretence: Pretence, *, encodes: bool = True
) -> AsyncIterator[None]:
    with tempfile.TemporaryDirectory() as folder, pretending(Path(folder), pretence) as host:
        async with working(client, host if encodes else replace(host, slots=Slots({})), drain_s=0):
            yield


async def lose_an_encode(client: Client, desk: Desk) -> None:
    """Takes it, lets it seem dead, and says then that it lives."""
    await client.workflow_service.poll_activity_task_queue(
        PollActivityTaskQueueRequest(
            namespace=client.namespace,
            task_queue=TaskQueue(name=queue_of(JobKind.HLS, Step.ENCODE)),
        )
    )
    (attempt,) = (await desk.get(JOB_ID)).attempt_names

    async def is_lost() -> bool:
        return (await desk.get(JOB_ID)).attempts == 1 and attempt not in (
            (await desk.get(JOB_ID)).attempt_names[-1:]
        )

    await until(is_lost)
    await client.get_workflow_handle(JOB_ID).signal(LIVES, attempt)


def _without_traces(fields: dict[str, Any]) -> dict[str, Any]:
    """They name paths of the machine."""
    return {name: value for name, value in fields.items() if name != "stackTrace"}


async def _has_begun(pretence: Pretence) -> bool:
    return bool(pretence.made)


async def _has_ended(client: Client) -> bool:
    return (await client.get_workflow_handle(JOB_ID).describe()).close_time is not None


async def main() -> None:
    logging.disable(logging.WARNING)
    flow.FIRST_PAUSE_S = 0.1
    with tempfile.TemporaryDirectory() as data:
        server = TemporalServer(Path(data))
        await server.start()
        try:
            for version in WORKFLOWS.values():
                (FOLDER / version).mkdir(parents=True, exist_ok=True)
                for name in CASES:
                    target = FOLDER / version / f"{name}.json"
                    if not target.exists():
                        await record(server, name, target)
        finally:
            await server.stop()


if __name__ == "__main__":
    asyncio.run(main())
