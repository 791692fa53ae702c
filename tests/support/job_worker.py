"""A worker process whose jobs only pretend: `python -m tests.support.job_worker FOLDER [key=…]`.

The parameters of a job say what it does: `seconds` to work, and `mode` sleep, raise, bug, permanent
or crash; with `times`, so many attempts end first as if a server were `away`, or a `program`. Its
outputs are keys in Redis under the fence of the attempt; what was published is a set, so that a
second result is seen."""

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from cefmp4.app.lifetime import stop_of_signals
from cefmp4.errors import (
    PermanentError,
    ProgramMissingError,
    ServerUnreachableError,
    TransientError,
)
from cefmp4.jobs import attempt as attempts
from cefmp4.jobs.attempt import JobContext, JobOutcome, JobProcedure, NeedsSlotError
from cefmp4.jobs.queue import open_jobs
from cefmp4.jobs.slots import Slots
from cefmp4.jobs.workplace import open_workplace
from cefmp4.model.job import Job, JobKind, JobProgress, SlotKind
from cefmp4.retry import Backoff
from cefmp4.storage.redis.owner import owner_id
from cefmp4.worker import JobRunner

STEP_S = 0.05


class Pretence:
    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def run(self, context: JobContext) -> JobOutcome:
        job, params = context.job, context.job.spec.params
        (context.folder / "scratch").write_bytes(b"x")
        if context.slot is None and "copy" not in params:
            raise NeedsSlotError
        await self._redis.rpush(f"test:begun:{job.id}", f"{os.getpid()}:{context.fence}")
        await self._redis.set(f"test:out:{job.id}:{context.fence}", "1")
        mode = params.get("mode", "sleep")
        if mode == "raise":
            raise TransientError("the encoder is busy")
        begun = await self._redis.llen(f"test:begun:{job.id}")
        if begun <= int(params.get("times", "0")):
            raise ServerUnreachableError if mode == "away" else ProgramMissingError
        if mode == "bug":
            raise ValueError("a mistake of ours")
        if mode == "permanent":
            raise PermanentError("no video in it")
        if mode == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        steps = max(1, round(float(params.get("seconds", "0.2")) / STEP_S))
        for step in range(steps):
            context.report(JobProgress(percent=100 * step / steps, speed=2.0, fps=50.0))
            await asyncio.sleep(STEP_S)
        return JobOutcome(result={"made_by": context.fence})

    async def publish(self, job: Job) -> None:
        await self._redis.sadd(f"test:published:{job.id}", str(job.accepted))
        for fence in job.fences:
            if fence != job.accepted:
                await self._redis.delete(f"test:out:{job.id}:{fence}")

    async def discard(self, job: Job, fence: int) -> None:
        await self._redis.delete(f"test:out:{job.id}:{fence}")


async def work(folder: Path, options: dict[str, str]) -> None:
    url = os.environ["REDIS_URL"]
    stop = stop_of_signals()
    async with (
        Redis.from_url(url, retry=Retry(NoBackoff(), 3)) as redis,
        open_jobs(
            url,
            lease_seconds=float(options.get("lease", "2")),
            redelivery_s=float(options.get("redelivery", "4")),
        ) as queue,
    ):
        pretence = Pretence(redis)
        procedure = JobProcedure(
            run=pretence.run, publish=pretence.publish, discard=pretence.discard
        )
        with open_workplace(folder) as workplace:
            await JobRunner(
                queue=queue,
                procedures=dict.fromkeys(JobKind, procedure),
                slots=Slots(
                    {
                        SlotKind.GPU: int(options.get("gpu", "0")),
                        SlotKind.CPU: int(options.get("cpu", "1")),
                    }
                ),
                workplace=workplace,
                owner=owner_id(options.get("host", socket.gethostname())),
                # Death that only the end of the lease tells, as between two hosts.
                is_dead=lambda _owner: False,
                drain_s=float(options.get("drain", "0")),
                heartbeat_s=0.3,
                reconcile_s=0.5,
                backoff=Backoff(first_s=0.2, cap_s=1.0),
            ).run(stop)


if __name__ == "__main__":
    attempts.NO_ROOM_S = 0.2
    asyncio.run(
        work(Path(sys.argv[1]), dict(word.split("=", 1) for word in sys.argv[2:])),
    )
