"""Whoever may write to Redis runs no code in a worker, in `up` or in a command, and ends none of
them: what is not a ticket of ours is dropped, with one line and one count."""

import ast
import asyncio
import importlib.util
import json
import os
import pickle
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import pytest_asyncio
import structlog
from redis.asyncio import Redis

from cefmp4 import metrics
from cefmp4.jobs import docket_guard
from cefmp4.jobs.attempt import JobContext, JobOutcome, JobProcedure
from cefmp4.jobs.queue import JobQueue, open_jobs
from cefmp4.jobs.slots import Slots
from cefmp4.jobs.workplace import open_workplace
from cefmp4.model.job import JobInput, JobKind, JobSpec, JobState, SlotKind
from cefmp4.worker import JobRunner

pytestmark = pytest.mark.integration

LANE = "cefmp4-hls-look"
PLAINLY = ("cloudpickle", None)
PLAIN = {"when": "2026-01-01T00:00:00+00:00", "attempt": "1", "generation": "0"}


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, tuple[str, int]]:
        return os.open, (self.path, os.O_CREAT | os.O_WRONLY)


def ticket(**fields: str | bytes) -> dict[Any, Any]:
    good = {
        **PLAIN,
        "key": "evil-hls#1",
        "function": "work",
        "args": pickle.dumps(("evil-hls",)),
        "kwargs": pickle.dumps({}),
    }
    return good | fields


def bomb(path: Path) -> bytes:
    return pickle.dumps((Touch(path),))


def strike(value: bytes) -> dict[Any, Any]:
    return {"direction": "strike", "operator": "==", "value": value}


# As long a memo as the number says: five bytes take all memory.
MEMO_BOMB = b"\x80\x02Nr\xff\xff\xff\x7f0)."
BAD_TICKETS: dict[str, Callable[[Path], dict[Any, Any]]] = {
    "a global in its arguments": lambda path: ticket(args=bomb(path)),
    "a global in its keywords": lambda path: ticket(kwargs=bomb(path)),
    "a memo bomb": lambda _: ticket(args=MEMO_BOMB),
    "no pickle at all": lambda _: ticket(args=b"\xff\x00"),
    "a megabyte": lambda _: ticket(args=pickle.dumps(("x" * 1_000_000,))),
    "other types": lambda _: ticket(args=pickle.dumps((5, [1]))),
    "another function": lambda _: ticket(function="sleep", args=pickle.dumps((1e9,))),
    "an unknown function": lambda _: ticket(function="os.system"),
    "no fields of ours": lambda _: {"a": "b"},
    "bytes for a name": lambda _: ticket(key=b"\xff\xfe#1"),
    "no date": lambda _: ticket(when="soon"),
    "words for numbers": lambda _: ticket(attempt="many"),
}


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, "not in time"
        await asyncio.sleep(0.05)


@pytest_asyncio.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as client:
        yield client


@asynccontextmanager
async def working(url: str, folder: Path) -> AsyncIterator[JobQueue]:
    """A worker whose jobs do nothing. Fails where it ended by itself."""

    async def run(context: JobContext) -> JobOutcome:
        return JobOutcome(result={})

    stop = asyncio.Event()
    async with open_jobs(url, lease_seconds=2, redelivery_s=1) as queue:
        with open_workplace(folder) as workplace:
            runner = JobRunner(
                queue=queue,
                procedures={JobKind.HLS: JobProcedure(run=run)},
                slots=Slots({SlotKind.CPU: 1}),
                workplace=workplace,
                owner="one",
                is_dead=lambda _owner: False,
                reconcile_s=0.3,
                heartbeat_s=0.3,
            )
            running = asyncio.create_task(runner.run(stop))
            try:
                yield queue
                assert not running.done(), "the worker ended"
            finally:
                stop.set()
                await running


async def does_a_job(queue: JobQueue, name: str) -> None:
    spec = JobSpec(subject=name, kind=JobKind.HLS, input=JobInput(key="a"))
    await queue.submit(spec)

    async def is_complete() -> bool:
        job = await queue.ledger.find(spec.id)
        return job is not None and job.is_complete

    await until(is_complete)


def count(what: str) -> float:
    return float(metrics.unreadable_records.labels(what)._value.get())


async def test_bad_tickets_run_nothing_and_end_nothing(
    redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    before, mark = count("ticket"), tmp_path / "mark"
    for make in BAD_TICKETS.values():  # before it starts: each start would meet them again
        await redis.xadd(f"{LANE}:stream", make(mark))
    with structlog.testing.capture_logs() as lines:
        async with working(redis_url, tmp_path / "work") as queue:
            await does_a_job(queue, "first")
            for make in BAD_TICKETS.values():
                await redis.xadd(f"{LANE}:stream", make(mark))
            await does_a_job(queue, "second")
            assert not mark.exists()

            async def is_empty() -> bool:
                return not await redis.xlen(f"{LANE}:stream")

            await until(is_empty)
    assert count("ticket") == before + 2 * len(BAD_TICKETS)
    told = [line for line in lines if line["event"] == "bad tickets dropped"]
    assert sum(line["count"] for line in told) == 2 * len(BAD_TICKETS)


@pytest.mark.parametrize("make", BAD_TICKETS.values(), ids=BAD_TICKETS)
def test_what_is_wrong_with_a_ticket_is_told(
    make: Callable[[Path], dict[Any, Any]], tmp_path: Path
) -> None:
    message = {
        name.encode(): value.encode() if isinstance(value, str) else value
        for name, value in make(tmp_path / "mark").items()
    }
    assert docket_guard.fault_of(message)
    assert not (tmp_path / "mark").exists()


async def test_a_ticket_that_a_dead_worker_held_is_looked_at_too(
    redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    mark, stream = tmp_path / "mark", f"{LANE}:stream"
    await redis.xgroup_create(stream, "docket-workers", id="0-0", mkstream=True)
    await redis.xadd(stream, ticket(args=bomb(mark)))
    await redis.xreadgroup("docket-workers", "dead", {stream: ">"})
    async with working(redis_url, tmp_path / "work") as queue:

        async def is_empty() -> bool:
            return not await redis.xlen(stream)

        await until(is_empty)
        await does_a_job(queue, "first")
    assert not mark.exists()


async def test_a_strike_runs_nothing_and_stops_nothing(
    redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    bomb = strike(pickle.dumps(Touch(mark))) | {"parameter": "job_id"}
    await redis.xadd(f"{LANE}:strikes", bomb)
    await redis.xadd(f"{LANE}:strikes", {"direction": "strike", "function": "work"})
    async with working(redis_url, tmp_path / "work") as queue:
        await does_a_job(queue, "first")
    assert not mark.exists()


async def test_a_command_runs_nothing_either(redis: Redis, redis_url: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    message = strike(pickle.dumps(Touch(mark)))
    for lane in ("hls-look", "hls-encode", "analysis"):
        await redis.xadd(f"cefmp4-{lane}:strikes", message)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cefmp4", "jobs", "retry", "s-hls"),
        env={"PATH": os.defpath, "REDIS_URL": redis_url, "S3_BUCKET_NAME": "recordings"},
        cwd=tmp_path,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    assert process.returncode == 1, said
    assert b"there is no job" in said
    assert not mark.exists()


async def test_keys_of_the_queue_that_are_something_else(
    redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    for key in ("stream", "queue", "runs:first-hls#1", "workers", "strikes"):
        await redis.set(f"{LANE}:{key}", "something else")
    async with working(redis_url, tmp_path / "work") as queue:
        await does_a_job(queue, "first")


async def test_a_planted_delay_holds_up_no_other(
    redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    """docket's look at what is due stops at the first that it cannot read."""
    await redis.zadd(f"{LANE}:queue", {"planted": 0})
    await redis.set(f"{LANE}:planted", "something else")
    before = count("queue")
    async with working(redis_url, tmp_path / "work") as queue:

        async def is_told() -> bool:
            return count("queue") > before

        await until(is_told)
        await does_a_job(queue, "first")
    assert not await redis.exists(f"{LANE}:planted")


def test_docket_loads_only_through_what_is_guarded() -> None:
    """Against an upgrade that reads what it stores in another way."""
    spec = importlib.util.find_spec("docket")
    assert spec
    assert spec.submodule_search_locations
    used = set()
    for path in Path(spec.submodule_search_locations[0]).rglob("*.py"):
        used |= _ways_to_load(ast.parse(path.read_text()))
    assert used == {"cloudpickle.dumps", "cloudpickle.loads"}
    assert cloudpickle.loads is docket_guard.harmless_loads
    with pytest.raises(pickle.UnpicklingError):
        cloudpickle.load(None)


_LOADERS = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "copyreg", "jsonpickle", "yaml"}


def _ways_to_load(tree: ast.AST) -> set[str]:
    """`module.name` for what is taken from a module that can load objects, by whatever import."""
    return {way for node in ast.walk(tree) if (way := _way_to_load(node))}


def _way_to_load(node: ast.AST) -> str:
    match node:
        case ast.Import(names=names):
            odd = [n for n in names if n.name in _LOADERS and (n.name, n.asname) != PLAINLY]
            return f"import {odd[0].name} as {odd[0].asname}" if odd else ""
        case ast.ImportFrom(module=str(module)) if module.split(".")[0] in _LOADERS:
            return f"from {module}"
        case ast.Attribute(value=ast.Name(id=name), attr=attribute) if name in _LOADERS:
            return f"{name}.{attribute}"
        case ast.Call(func=ast.Name(id="eval" | "exec" | "__import__" as name)):
            return name
    return ""


LEDGER_KEYS = (
    *("queue:hls-look", "waiting:hls-look", "running", "state:queued", "state:complete"),
    *("litter", "fence", "workers:hls", "record:first-hls"),
)


async def test_keys_of_the_ledger_that_are_something_else(
    redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    for key in LEDGER_KEYS:
        await redis.set(f"cefmp4:job:{key}", "something else")
    async with working(redis_url, tmp_path / "work") as queue:
        await does_a_job(queue, "first")


async def test_jobs_are_not_lost_with_the_list_of_them(
    redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    async with open_jobs(redis_url, lease_seconds=2) as queue:
        await queue.ledger.submit(
            JobSpec(subject="early", kind=JobKind.HLS, input=JobInput(key="a"))
        )
    await redis.set("cefmp4:job:queue:hls-look", "something else")
    before = count("index")
    async with working(redis_url, tmp_path / "work") as queue:
        await does_a_job(queue, "late")

        async def is_complete() -> bool:
            return (await queue.ledger.get("early-hls")).is_complete

        await until(is_complete)
    assert count("index") == before + 1


BAD_RECORDS: dict[str, dict[Any, Any]] = {
    "no JSON": {"spec": "{"},
    "JSON without an end": {"spec": "[" * 100_000},
    "another kind": {"kind": "miner"},
    "another lane": {"lane": "fast"},
    "words for numbers": {"max_attempts": "many", "priority": "high"},
    "no numbers to count with": {"attempts": "many"},
    "no round": {"round": "many"},
    "the subject of another": {"spec": json.dumps({"subject": "other", "input": {"key": "a"}})},
    "a subject that leads out": {"spec": json.dumps({"subject": "../x", "input": {"key": "a"}})},
}


async def test_records_that_cannot_be_read_stop_no_other(
    redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    before = count("job")
    async with open_jobs(redis_url, lease_seconds=2) as queue:
        for number, change in enumerate(BAD_RECORDS.values()):
            spec = JobSpec(subject=f"bad{number}", kind=JobKind.HLS, input=JobInput(key="a"))
            await queue.ledger.submit(spec)
            await redis.hset(f"cefmp4:job:record:{spec.id}", mapping=change)
    async with working(redis_url, tmp_path / "work") as queue:
        await does_a_job(queue, "first")

        async def are_set_aside() -> bool:
            return await redis.zcard("cefmp4:job:queue:hls-look") == 0

        await until(are_set_aside)
        await does_a_job(queue, "second")
        assert len(await queue.ledger.latest([JobState.COMPLETE], 9)) >= 2
    assert count("job") > before


NAMES = (b"\xff\xfe-hls", b"x" * 100_000, b"\x1b[2J")


async def test_planted_names_stop_no_other(redis: Redis, redis_url: str, tmp_path: Path) -> None:
    for name in NAMES:
        record = b"cefmp4:job:record:" + name
        await redis.hset(record, mapping={"state": "queued", "lane": "hls-look", "spec": "{}"})
        await redis.zadd("cefmp4:job:queue:hls-look", {name: 0})
        for key in ("running", "state:in_progress", "state:failed"):
            await redis.zadd(f"cefmp4:job:{key}", {name: 0})
        await redis.sadd("cefmp4:job:litter", name)
    async with working(redis_url, tmp_path / "work") as queue:
        await does_a_job(queue, "first")
        assert await queue.ledger.latest([JobState.FAILED, JobState.COMPLETE], 9)
