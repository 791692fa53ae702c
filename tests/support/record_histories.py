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

from cefmp4.errors import ServerUnreachableError
from cefmp4.jobs import flow
from cefmp4.jobs.slots import Slots
from cefmp4.model.job import JobEnd, JobInput, JobKind, JobSpec, Step
from cefmp4.temporal.desk import Desk
from cefmp4.temporal.names import LIVES, WORKFLOWS, queue_of
from cefmp4.temporal.worker import working

FOLDER = Path(__file__).parents[1] / "unit/temporal/histories"
LOST = "lost-and-lives"


def spec(*tells: str, kind: JobKind = JobKind.HLS, **params: str) -> JobSpec:
    """`params` are what `Pretence` makes of them."""
    return JobSpec(subject="s", kind=kind, input=JobInput(key="k"), params=params, tells=tells)


CASES: dict[JobKind, dict[str, JobSpec]] = {
    JobKind.HLS: {
        "copied": spec(copy="1"),
        "encoded": spec(),
        "made-before": spec(copy="1", old="1"),
        "bad-input": spec(bad="no video in it"),
        "tried-again": spec(fails="2"),
        "used-up": spec(fails="9"),
        "server-away": spec(away="2"),
        "cancelled": spec(waits="1"),
        LOST: spec(),
        "told": spec("callback", copy="1"),
        "told-of-failure": spec("callback", bad="no video in it"),
        "told-later": spec("postgres", "callback", copy="1", deaf="2"),
    },
    JobKind.CALLBACK: {
        "heard": spec(kind=JobKind.CALLBACK, copy="1", old="1"),
        "heard-later": spec(kind=JobKind.CALLBACK, copy="1", old="1", away="2"),
        "given-up": spec(kind=JobKind.CALLBACK, copy="1", old="1", fails="9"),
    },
}


class Reporters:
    """`callback` does not hear the first times."""

    def __init__(self) -> None:
        self.told = 0

    async def callback(self, end: JobEnd) -> None:
        self.told += 1
        if self.told <= int(end.spec.params.get("deaf", "0")):
            raise ServerUnreachableError("nobody listens")

    async def postgres(self, _end: JobEnd) -> None: ...


async def record(server: TemporalServer, name: str, spec: JobSpec, target: Path) -> None:
    client = await JobPlace(server.address, await server.new_namespace()).connect()
    desk, pretence = Desk(client), Pretence()
    await desk.submit(spec)
    if name == LOST:
        async with at_work(client, pretence, encodes=False):
            await lose_an_encode(client, desk, spec.id)
    async with at_work(client, pretence):
        if name == "cancelled":
            await until(lambda: _has_begun(pretence))
            await desk.cancel(spec.id)
        handle = client.get_workflow_handle(spec.id)
        await until(lambda: _has_ended(client, spec.id))
        history = await handle.fetch_history()
    told = json.loads(history.to_json(), object_hook=_without_traces)
    await asyncio.to_thread(target.write_text, json.dumps(told, indent=1) + "\n")


@asynccontextmanager
async def at_work(
    client: Client, pretence: Pretence, *, encodes: bool = True
) -> AsyncIterator[None]:
    reporters = Reporters()
    with tempfile.TemporaryDirectory() as folder, pretending(Path(folder), pretence) as plain:
        host = replace(
            plain,
            procedures=dict.fromkeys(WORKFLOWS, pretence.procedure),
            slots=plain.slots if encodes else Slots({}),
            reporters={"postgres": reporters.postgres, "callback": reporters.callback},
        )
        async with working(client, host, drain_s=0):
            yield


async def lose_an_encode(client: Client, desk: Desk, job_id: str) -> None:
    """Takes it, lets it seem dead, and says then that it lives."""
    await client.workflow_service.poll_activity_task_queue(
        PollActivityTaskQueueRequest(
            namespace=client.namespace,
            task_queue=TaskQueue(name=queue_of(JobKind.HLS, Step.ENCODE)),
        )
    )
    (attempt,) = (await desk.get(job_id)).attempt_names

    async def is_lost() -> bool:
        return (await desk.get(job_id)).attempts == 1 and attempt not in (
            (await desk.get(job_id)).attempt_names[-1:]
        )

    await until(is_lost)
    await client.get_workflow_handle(job_id).signal(LIVES, attempt)


def _without_traces(fields: dict[str, Any]) -> dict[str, Any]:
    """They name paths of the machine."""
    return {name: value for name, value in fields.items() if name != "stackTrace"}


async def _has_begun(pretence: Pretence) -> bool:
    return bool(pretence.made)


async def _has_ended(client: Client, job_id: str) -> bool:
    return (await client.get_workflow_handle(job_id).describe()).close_time is not None


async def main() -> None:
    logging.disable(logging.WARNING)
    flow.FIRST_PAUSE_S = 0.1
    with tempfile.TemporaryDirectory() as data:
        server = TemporalServer(Path(data))
        await server.start()
        try:
            for kind, version in WORKFLOWS.items():
                (FOLDER / version).mkdir(parents=True, exist_ok=True)
                for name, asked in CASES[kind].items():
                    target = FOLDER / version / f"{name}.json"
                    if not target.exists():
                        await record(server, name, asked, target)
        finally:
            await server.stop()


if __name__ == "__main__":
    asyncio.run(main())
