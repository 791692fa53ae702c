"""The ledger of jobs in Redis. It alone changes a job's record: who may work on it, how often it
was tried, and the one result that counts. Its keys:

cefmp4:job:record:<id>     hash, the record
cefmp4:job:queue:<lane>    sorted set of the jobs that are ready, the next one first
cefmp4:job:waiting:<lane>  sorted set of the jobs that back off, by when they are ready
cefmp4:job:running         sorted set, by the end of the attempt's lease
cefmp4:job:state:<state>   sorted set, by the time of the last change
cefmp4:job:litter          set of failed jobs whose attempts may have left something behind
cefmp4:job:fence           counter
cefmp4:job:workers:<kind>  sorted set of the workers, by when they count as gone
"""

import json
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import structlog

from cefmp4 import metrics
from cefmp4.errors import InvariantError, PermanentError, RefusedError, UnknownJobError
from cefmp4.jobs import presence, repair, scripts
from cefmp4.jobs.records import decode_job, encode_progress, encode_spec
from cefmp4.model.job import (
    LANES,
    MAX_ERROR_CHARS,
    MAX_PRIORITY,
    FailReason,
    Job,
    JobKind,
    JobProgress,
    JobSpec,
    JobState,
    Lane,
    QueueStats,
    check_move,
)
from cefmp4.storage.redis.link import RedisLink, connect
from cefmp4.storage.redis.records import to_bytes, to_text

log = structlog.get_logger()

MAX_RESULT_BYTES = 256 * 1024  # longer ones belong beside the outputs; Redis holds every record


class Standing(StrEnum):
    """What a heartbeat is told."""

    OK = "ok"
    CANCEL = "cancel"  # an operator wants it to end
    LOST = "lost"  # another attempt runs, or the job is gone: nothing of ours counts any more


@dataclass(frozen=True, slots=True)
class RunningAttempt:
    job_id: str
    fence: int
    owner: str
    is_over: bool  # its lease is


@dataclass(frozen=True, slots=True)
class Ticket:
    """What the engine delivers: a job was ready. `round` makes each ticket of a job another."""

    job_id: str
    lane: Lane
    round: int


class RedisLedger:
    def __init__(self, link: RedisLink, *, lease_seconds: float) -> None:
        self._link = link
        self._lease_ms = max(1, int(lease_seconds * 1000))

    def __repr__(self) -> str:
        return f"<RedisLedger lease={self._lease_ms}ms>"

    async def submit(self, spec: JobSpec) -> Ticket | None:
        """None: the job is known already, in whatever state."""
        if abs(spec.priority) > MAX_PRIORITY:
            raise PermanentError(
                f"priority {spec.priority} is not within {-MAX_PRIORITY} and {MAX_PRIORITY}"
            )
        words: list[str | bytes | int] = [
            spec.id,
            spec.kind,
            LANES[spec.kind][0],
            to_bytes(encode_spec(spec)),
            spec.priority,
            max(1, spec.max_attempts),
        ]
        number = await self._link.run(scripts.SUBMIT, words=words)
        return Ticket(spec.id, LANES[spec.kind][0], int(number)) if number else None

    async def begin(self, lane: Lane, *, owner: str, slot: str, offered: str) -> Job | None:
        """Starts an attempt of the first job of that lane, which is `offered` unless one of a
        higher priority waits. None: nothing waits."""
        begun = await self._link.run(
            scripts.BEGIN, words=[lane, to_bytes(owner), self._lease_ms, slot, offered]
        )
        if not begun:
            return None
        job_id, fence = repair.read_id(begun[0]), repair.read_count(begun[1])
        try:
            return await self.get(job_id or "")
        except (InvariantError, UnknownJobError) as error:
            await self._link.run(
                scripts.FAIL, words=[begun[0], fence, FailReason.ERROR, _short(str(error))]
            )
            metrics.unreadable_records.labels("job").inc()
            raise

    async def heartbeat(
        self, job_id: str, fence: int, progress: JobProgress | None = None
    ) -> Standing:
        words: list[str | bytes | int] = [
            job_id,
            fence,
            self._lease_ms,
            encode_progress(progress),
        ]
        return Standing(to_text(await self._link.run(scripts.HEARTBEAT, words=words)))

    async def accept(self, job_id: str, fence: int, result: dict[str, Any]) -> bool:
        """False: the attempt is fenced off, and nothing it made counts."""
        text = json.dumps(result)
        if len(text) > MAX_RESULT_BYTES:
            raise PermanentError(
                f"a result of {len(text)} bytes is too long for the ledger",
                hint=f"store rows beside the outputs; the ledger takes {MAX_RESULT_BYTES} bytes",
            )
        return bool(await self._link.run(scripts.ACCEPT, words=[job_id, fence, text]))

    async def commit(self, job_id: str, fence: int) -> bool:
        """The accepted result is published: the job is complete. False as for `accept`."""
        return bool(await self._link.run(scripts.COMMIT, words=[job_id, fence]))

    async def fail(self, job_id: str, fence: int, reason: FailReason, error: str) -> bool:
        words: list[str | bytes | int] = [job_id, fence, reason, _short(error)]
        return bool(await self._link.run(scripts.FAIL, words=words))

    async def requeue(
        self,
        job: Job,
        *,
        error: str,
        delay_s: float = 0.0,
        gives_back: bool = False,
        wrote_nothing: bool = False,
        lane: Lane | None = None,
    ) -> Ticket | None:
        """The attempt is over and the job will be tried again, in another lane if so told; with
        `gives_back` it is not counted, with `wrote_nothing` not even remembered. None: it failed
        for good (cancelled, or no attempt is left), or we are fenced off."""
        words: list[str | bytes | int] = [
            job.id,
            job.fence,
            _short(error),
            int(delay_s * 1000),
            2 if wrote_nothing else int(gives_back),
            lane or "",
        ]
        answer = await self._link.run(scripts.REQUEUE, words=words)
        if not answer or JobState(to_text(answer[0])) is JobState.FAILED:
            return None
        return Ticket(job.id, lane or job.lane, int(answer[1]))

    async def cancel(self, job_id: str) -> JobState:
        """Answers the state it was in: a running job ends at its next heartbeat."""
        before = to_text(await self._link.run(scripts.CANCEL, words=[job_id]))
        if before == "accepted":
            raise RefusedError(f"job {job_id} has its result already: it is being published")
        state = _known_state(job_id, before)
        _check_operator(job_id, state, JobState.FAILED)
        return state

    async def retry(self, job_id: str) -> Ticket:
        before, number = await self._link.run(scripts.RETRY, words=[job_id])
        state = _known_state(job_id, to_text(before))
        if state is not JobState.FAILED:
            raise RefusedError(f"job {job_id} is {state}: only a failed one can be retried")
        return Ticket(job_id, (await self.get(job_id)).lane, int(number))

    async def find(self, job_id: str) -> Job | None:
        record = await self._link.call("HGETALL", _record_key(job_id))
        job = decode_job(_pairs(record)) if record else None
        if job is not None and job.id != job_id:
            raise InvariantError("a job record in Redis is that of another job")
        return job

    async def _readable(self, ids: Iterable[bytes]) -> list[Job]:
        """One that cannot be read must not hide the others."""
        jobs = []
        for job_id in filter(None, map(repair.read_id, ids)):
            try:
                job = await self.find(job_id)
            except (InvariantError, PermanentError) as error:
                log.debug("a job is left out", job_id=job_id, reason=str(error))
                continue
            if job is not None:
                jobs.append(job)
        return jobs

    async def get(self, job_id: str) -> Job:
        job = await self.find(job_id)
        if job is None:
            raise UnknownJobError(f"there is no job {job_id!a}")
        return job

    async def states(self, job_ids: Sequence[str]) -> dict[str, JobState]:
        """Of those that are known."""
        answer = await self._link.run(scripts.STATES, words=list(job_ids)) if job_ids else []
        return {
            job_id: JobState(to_text(state))
            for job_id, state in zip(job_ids, answer, strict=True)
            if to_text(state or b"") in tuple(JobState)
        }

    async def latest(self, states: Iterable[JobState], limit: int) -> list[Job]:
        """The latest changes first, in the order of `states`."""
        jobs: list[Job] = []
        for state in states:
            ids = await self._link.call(
                "ZREVRANGE", f"cefmp4:job:state:{state}", 0, limit - len(jobs) - 1
            )
            jobs += await self._readable(ids)
            if len(jobs) >= limit:
                break
        return jobs

    async def counts(self) -> dict[JobState, int]:
        return {
            state: int(await self._link.call("ZCARD", f"cefmp4:job:state:{state}"))
            for state in JobState
        }

    async def running(self) -> list[RunningAttempt]:
        return [
            RunningAttempt(job_id, repair.read_count(fence), to_text(owner), over == b"1")
            for raw, fence, owner, over in await self._link.run(scripts.RUNNING)
            if (job_id := repair.read_id(raw))
        ]

    async def littered(self) -> list[Job]:
        """Failed jobs, and such as were failed, whose outputs nobody has cleared away yet."""
        ids = await self._link.call("SMEMBERS", "cefmp4:job:litter")
        return await self._readable(ids)

    async def tidied(self, job_id: str) -> None:
        await self._link.call("SREM", "cefmp4:job:litter", job_id)

    async def ready(self, lane: Lane, *, count: int, for_seconds: float) -> list[Ticket]:
        """Tickets of the first jobs that have been ready for that long."""
        words: list[str | bytes | int] = [lane, count, f"{for_seconds:.3f}"]
        answer = await self._link.run(scripts.READY, words=words)
        return [
            Ticket(job_id, lane, repair.read_count(number))
            for raw, number in answer
            if (job_id := repair.read_id(raw))
        ]

    async def stats(self, lane: Lane) -> QueueStats:
        ready, waiting, oldest = await self._link.run(scripts.STATS, words=[lane])
        return QueueStats(queued=int(ready), waiting=int(waiting), oldest_seconds=float(oldest))

    async def announce(self, owner: str, kinds: Iterable[JobKind]) -> None:
        """A worker lives; to be said again within PRESENCE_MS."""
        for kind in kinds:
            await self._link.run(
                presence.ANNOUNCE, words=[kind, to_bytes(owner), presence.PRESENCE_MS]
            )

    async def leave(self, owner: str, kinds: Iterable[JobKind]) -> None:
        for kind in kinds:
            await self._link.call("ZREM", presence.key_of(kind), to_bytes(owner))

    async def workers(self, kind: JobKind) -> int:
        return int(await self._link.run(presence.COUNT, words=[kind]))


@asynccontextmanager
async def open_ledger(url: str, *, lease_seconds: float) -> AsyncIterator[RedisLedger]:
    """No connection is made here: the first call says whether Redis is there."""
    link = connect(url, repair.mend_lists)
    try:
        yield RedisLedger(link, lease_seconds=lease_seconds)
    finally:
        await link.close()


def _record_key(job_id: str) -> str:
    return f"cefmp4:job:record:{job_id}"


def _short(error: str) -> bytes:
    return error[:MAX_ERROR_CHARS].encode("utf-8", "replace")


def _pairs(answer: Any) -> dict[bytes, bytes]:
    """HGETALL comes as a map or as a flat list, by the version of the client."""
    return dict(answer) if isinstance(answer, dict) else dict(zip(*[iter(answer)] * 2, strict=True))


def _known_state(job_id: str, state: str) -> JobState:
    if not state:
        raise UnknownJobError(f"there is no job {job_id!a}")
    try:
        return JobState(state)
    except ValueError:
        raise InvariantError(f"job {job_id!a} is in no state that there is") from None


def _check_operator(job_id: str, state: JobState, target: JobState) -> None:
    try:
        check_move(job_id, state, target)
    except InvariantError:
        raise RefusedError(f"job {job_id} is {state} already") from None
