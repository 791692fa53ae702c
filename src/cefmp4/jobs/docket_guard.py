"""docket, fenced off from what others may have written to Redis: it pickles what it carries, trusts
all it reads, and ends for good where it cannot. Here nothing is unpickled but what a ticket of ours
is made of, strikes are not read at all, a message that is no ticket is dropped, and a queue that
docket cannot work with is emptied. A ticket is only a hint: the reconciler sends another."""

import pickle
import pickletools
from collections.abc import Sequence
from datetime import datetime
from io import BytesIO
from typing import Any

import cloudpickle
import docket.docket
import structlog
from docket import Docket, Worker
from docket.strikelist import StrikeList
from redis.exceptions import NoScriptError, RedisError, ResponseError

from cefmp4 import metrics
from cefmp4.errors import AccessDeniedError, PermanentError
from cefmp4.storage.redis.link import translated_error

log = structlog.get_logger()

TASK = "work"
MAX_PICKLE_BYTES = 4096  # a job id has a fraction of that
_MAX_KEY_CHARS = 1000
_EMPTY_AT_ONCE = 500
_MAX_REASON_CHARS = 300
# What a tuple of one string, and an empty dictionary, are made of. Nothing that looks up a name,
# calls, or names a place in the memo, for which a few bytes take all memory.
_HARMLESS = frozenset(
    {
        *("PROTO", "FRAME", "MEMOIZE", "STOP"),
        *("SHORT_BINUNICODE", "BINUNICODE", "EMPTY_TUPLE", "TUPLE1", "EMPTY_DICT"),
    }
)

Messages = Sequence[tuple[bytes, dict[bytes, bytes]]]


class _NoGlobals(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def harmless_loads(data: bytes) -> Any:
    """In place of cloudpickle's, which runs what it is told to."""
    if len(data) > MAX_PICKLE_BYTES:
        raise pickle.UnpicklingError(f"it has {len(data)} bytes")
    for opcode, _, _ in pickletools.genops(data):
        if opcode.name not in _HARMLESS:
            raise pickle.UnpicklingError(f"it holds {opcode.name}")
    return _NoGlobals(BytesIO(data)).load()


def _refuse_to_load(*_: Any, **__: Any) -> Any:
    raise pickle.UnpicklingError("nothing is unpickled from a file")


class _NoStrikes(StrikeList):
    """We strike nothing, so whoever wrote to the list of strikes was not one of us."""

    def __init__(self, **_: Any) -> None:
        super().__init__()


cloudpickle.loads, cloudpickle.load = harmless_loads, _refuse_to_load
# Its own name for the class that it makes.
docket.docket.StrikeList = _NoStrikes  # type: ignore[attr-defined,assignment]


class GuardedWorker(Worker):
    """A worker that outlives whatever lies in Redis."""

    async def _worker_loop(self, redis: Any, forever: bool = False) -> Any:
        try:
            sieve: Any = _Sieve(redis, self.docket)
            return await super()._worker_loop(sieve, forever)
        except (Exception, BaseExceptionGroup) as error:
            if not is_unworkable(error):
                raise
            await empty(self.docket, error)
            raise RedisError("its queue was emptied") from error  # docket begins again after it

    async def _handle_cancellation(self, message: Any) -> None:
        """We cancel through the ledger."""


def is_unworkable(error: BaseException) -> bool:
    """Not that Redis is away: it answered with what docket cannot work with."""
    if isinstance(error, BaseExceptionGroup):
        return any(is_unworkable(inner) for inner in error.exceptions)
    if isinstance(error, RedisError | OSError):
        translated = translated_error(error)
        is_denied = isinstance(translated, AccessDeniedError)
        return isinstance(translated, PermanentError) and not is_denied
    return isinstance(error, Exception)


async def empty(tickets: Docket, error: BaseException) -> None:
    """All that docket keeps for one lane, of whatever type it is by now."""
    async with tickets.redis() as client:
        redis: Any = client
        async for key in redis.scan_iter(match=f"{tickets.prefix}:*", count=_EMPTY_AT_ONCE):
            await redis.unlink(key)
    metrics.unreadable_records.labels("queue").inc()
    log.warning("tickets thrown away", lane=tickets.name, reason=repr(error)[:_MAX_REASON_CHARS])


class _Sieve:
    """A Redis client that hands on only messages that are tickets."""

    def __init__(self, redis: Any, tickets: Docket) -> None:
        self._redis = redis
        self._tickets = tickets

    def __getattr__(self, name: str) -> Any:
        return getattr(self._redis, name)

    async def xreadgroup(self, **words: Any) -> list[tuple[bytes, Messages]]:
        streams = await self._redis.xreadgroup(**words)
        return [(name, await self._sifted(messages)) for name, messages in streams]

    async def xautoclaim(self, **words: Any) -> list[Any]:
        cursor, messages, *rest = await self._redis.xautoclaim(**words)
        return [cursor, await self._sifted(messages), *rest]

    async def evalsha(self, *words: Any) -> Any:
        """docket's look at what is due would fail for ever, and tell nobody."""
        try:
            return await self._redis.evalsha(*words)
        except ResponseError as error:
            if not isinstance(error, NoScriptError) and is_unworkable(error):
                await empty(self._tickets, error)
            raise

    async def _sifted(self, messages: Messages) -> Messages:
        good, bad, faults = [], [], set()
        for message_id, message in messages:
            fault = fault_of(message)
            if fault:
                bad.append((message_id, message.get(b"key", b"")))
                faults.add(fault)
            else:
                good.append((message_id, message))
        if bad:
            await self._drop(bad)
            reason = "; ".join(sorted(faults))[:_MAX_REASON_CHARS]
            metrics.unreadable_records.labels("ticket").inc(len(bad))
            lane = self._tickets.name
            log.warning("bad tickets dropped", lane=lane, count=len(bad), reason=reason)
        return good

    async def _drop(self, bad: Sequence[tuple[bytes, bytes]]) -> None:
        """With what docket remembers of them, or a good ticket of that name would be refused."""
        stream, group = self._tickets.stream_key, self._tickets.worker_group_name
        runs = self._tickets.key("runs:").encode()
        ids = [message_id for message_id, _ in bad]
        await self._redis.xack(stream, group, *ids)
        await self._redis.xdel(stream, *ids)
        await self._redis.unlink(*(runs + key for _, key in bad))


def fault_of(message: dict[bytes, bytes]) -> str:
    """What is wrong with it, "" for a ticket of ours."""
    try:
        key = message[b"key"].decode("ascii")
        job_id, sign, number = key.rpartition("#")
        if not (job_id and sign and number.isdecimal() and len(key) <= _MAX_KEY_CHARS):
            return "its key is not ours"
        if message[b"function"] != TASK.encode():
            return "it asks for another function"
        if harmless_loads(message[b"args"]) != (job_id,) or harmless_loads(message[b"kwargs"]):
            return "it carries something else"
        datetime.fromisoformat(message[b"when"].decode()).timestamp()
        counts = int(message[b"attempt"]), int(message.get(b"generation", b"0"))
    except (KeyError, ValueError, OverflowError, OSError) as error:
        return f"it cannot be read: {error!r}"[:200]
    except pickle.UnpicklingError as error:
        return f"it cannot be unpickled: {error}"[:200]
    return "" if all(0 <= count < 1 << 53 for count in counts) else "it counts beyond reason"
